"""Elementary functions as plain arithmetic, so that LLVM vectorises them for every target.

A call of ``expf`` in a loop makes the loop scalar, ten to fifty times slower than what is here. Everything is
branch-free: range reduction with a magic-number rounding (which needs no rounding instruction), a polynomial whose
coefficients were fitted with weighted least squares to near-minimax, and reconstruction by integer arithmetic on
the exponent. float32 results are within 4 units in the last place; denormal results may come out as zero.
``exp64`` and ``log64`` are good to about 1e-14 and serve float32 functions that need a longer intermediate.

Nothing here looks at graph nodes; ``scalar.py`` maps primitives to these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any

Expr = Any

MAGIC32 = 12582912.0
"""1.5 · 2^23: adding it leaves the nearest integer in the low bits of the significand."""
MAGIC64 = 6755399441055744.0
LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HIGH32 = 0.693359375
"""ln 2 in nine bits, so that its product with an exponent is exact; the rest in the next constant."""
LN2_LOW32 = -2.1219444005469057e-4
LN2_HIGH64 = 0.6931471803691238
LN2_LOW64 = 1.9082149292705877e-10

EXP32 = (0.49999992629325984, 0.16666508714506936, 0.041668528321005184, 0.008370135031978405, 0.0013811660256924)
EXP64 = (
    0.4999999999999797, 0.16666666666602117, 0.04166666666838045, 0.008333333375597272, 0.0013888888471408445,
    0.00019841178271056087, 2.480195794389819e-05, 2.763812657255952e-06, 2.747426529322598e-07,
)  # fmt: skip
LOG32 = (
    0.3333331259568278, -0.250000097900967, 0.20002119621870906, -0.16667985544397526, 0.1421951985211724,
    -0.12405756266428608, 0.11888603227715275, -0.11674806639878108, 0.06744542320476059,
)  # fmt: skip
LOG64 = (
    0.6666666666657693, 0.40000000057866436, 0.2857141615676702, 0.22223444661073832, 0.1812118247066572,
    0.16850421668530255,
)  # fmt: skip
ERF_SMALL = (
    0.1283791665798037, -0.37612633188385114, 0.11283687188149513, -0.026858941481526215, 0.005199906605130533,
    -0.0008130011992553426, 8.316772551694802e-05,
)  # fmt: skip
"""(erf(x) - x) / x in powers of x², up to 0.93."""
ERF_LARGE = (
    0.0001746844682621346, -1.1295149306371055, -0.6333469059298376, -0.10828008990211488, 0.025119427719263076,
    -0.004171063160646015, 0.0004344626448346269, -2.1095052815897106e-05,
)  # fmt: skip
"""log(erfc(x)) from 0.92 to 4, beyond which erf rounds to 1."""
ERF_TOP = (
    1.1283791457576702, 0.1905954733556175, 0.0527695258790612, 0.0037726216496164464, 0.00028484473594946817,
    2.0460101575793657e-06,
)  # fmt: skip
ERF_BOTTOM = (
    1.0, 0.5022435708116703, 0.11418343115048225, 0.01498334459585324, 0.001163874182930675, 3.8047656329997814e-05,
)  # fmt: skip
"""erf(x) / x as a fraction in powers of x², up to 3.925."""
SIN = (-0.16666666639557612, 0.008333329143893023, -0.00019839256628032283, 2.717564407865738e-06)
COS = (0.041666666619203874, -0.001388888343839624, 2.4799436400998133e-05, -2.7203303166336425e-07)
ATAN = (-0.3333331467579378, 0.19998434453734212, -0.14242741372117557, 0.1058736145344958, -0.06060523608435713)
ASIN = (
    0.1666665985288744, 0.07500512133070751, 0.04451547102269792, 0.03181981918386157, 0.014393806118684878,
    0.03757815608651268,
)  # fmt: skip


def dtype_of(value: Expr) -> str:
    return str(value.ty.dtype)


def const(number: float, dtype: str = "float32") -> Expr:
    from tvm import tirx

    return tirx.const(number, dtype)


def cast(value: Expr, dtype: str) -> Expr:
    """To a dtype; to bfloat16 is a float32 rounded to what bfloat16 can say (see ``halved`` for its storage)."""
    from tvm import tirx

    if dtype == "bfloat16":
        return rounded_to_bfloat16(cast(value, "float32"))
    return value if dtype_of(value) == dtype else tirx.Cast(dtype, value)


def rounded_to_bfloat16(x: Expr) -> Expr:
    """Half to even, still a float32; NaN stays."""
    low, one = const(0x7FFF, "int32"), const(1, "int32")

    def nearest(v: Expr) -> Expr:
        up = let(bits(v), lambda u: u + (low + ((u >> const(16, "int32")) & one)))
        return unless_nan(v, from_bits(up & const(-65536, "int32")))

    return let(x, nearest)


def halved(x: Expr) -> Expr:
    """The upper half of a float32, as bfloat16 is stored, of a number that needs no more."""
    return cast((bits(x) >> const(16, "int32")) & const(65535, "int32"), "uint16")


def doubled(stored: Expr) -> Expr:
    """The float32 of a stored bfloat16."""
    return from_bits(cast(stored, "int32") << const(16, "int32"))


_collected: ContextVar[list[tuple[Expr, Expr]] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[tuple[Expr, Expr]]]:
    """Names bound by ``let`` meanwhile are gathered, in order, instead of standing inside of the expressions.

    Lets inside the values of lets cost the compiler time exponential in their depth; a flat row of them does not.
    """
    gathered: list[tuple[Expr, Expr]] = []
    token = _collected.set(gathered)
    try:
        yield gathered
    finally:
        _collected.reset(token)


def wrapped(names: Sequence[tuple[Expr, Expr]], value: Expr) -> Expr:
    """One expression again: every name bound around it."""
    from tvm import tirx

    for name, bound in reversed(names):
        value = tirx.Let(name, bound, value)
    return value


def let(value: Expr, use: Callable[[Expr], Expr]) -> Expr:
    """``use`` may mention its argument many times; the value is computed once."""
    from tvm import tirx

    gathered = _collected.get()
    if gathered is None:
        with collecting() as names:
            result = let(value, use)
        return wrapped(names, result)
    while isinstance(value, tirx.Let):
        gathered.append((value.var, value.value))
        value = value.body
    if isinstance(value, (tirx.Var, tirx.IntImm, tirx.FloatImm)):
        return use(value)
    name = tirx.Var("t", dtype_of(value))
    gathered.append((name, value))
    return use(name)


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    from tvm import tirx

    return tirx.Select(condition, yes, no)


def equal(a: Expr, b: Expr) -> Expr:
    """``a == b`` as an expression; the operator's result is not one yet."""
    from tvm import tirx

    return tirx.EQ(a, b)


def unequal(a: Expr, b: Expr) -> Expr:
    """NaN is unequal to everything, which LLVM is not told of ``a != b``. Floats must be variables or constants."""
    from tvm import tirx

    if "float" not in dtype_of(a):
        return tirx.NE(a, b)
    return either(tirx.NE(a, b), *(is_nan(x) for x in (a, b) if not isinstance(x, tirx.FloatImm)))


def both(*conditions: Expr) -> Expr:
    from tvm import tirx

    return reduce(tirx.And, conditions)


def either(*conditions: Expr) -> Expr:
    from tvm import tirx

    return reduce(tirx.Or, conditions)


def bits(value: Expr) -> Expr:
    """The float's bits as a signed integer of its width."""
    from tvm import tirx

    return tirx.reinterpret("int" + dtype_of(value)[5:], value)


def from_bits(value: Expr) -> Expr:
    from tvm import tirx

    return tirx.reinterpret("float" + dtype_of(value)[3:], value)


def horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    """c0 + c1·x + c2·x² + …; ``x`` is used often, so it must be a variable."""
    dtype = dtype_of(x)
    total = const(coefficients[-1], dtype)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + const(coefficient, dtype)
    return total


def is_nan(x: Expr) -> Expr:
    """By its bits: the simplifier takes ``x != x`` for false. ``x`` must be a variable."""
    wide = dtype_of(x) == "float64"
    whole, limit = ("int64", 0x7FF0000000000000) if wide else ("int32", 0x7F800000)
    mask = 0x7FFFFFFFFFFFFFFF if wide else 0x7FFFFFFF
    return (bits(x) & const(mask, whole)) > const(limit, whole)


def unless_nan(x: Expr, value: Expr) -> Expr:
    """``value``, but ``x`` (a variable) where that is not a number: one comparison."""
    # nothing but NaN fails this, and nobody may turn the comparison round: that is why it is not negated
    return select(x <= infinity(dtype_of(x)), value, x)


def nan(dtype: str = "float32") -> Expr:
    from tvm import tirx

    bits_of = {"float32": 0x7FC00000, "float64": 0x7FF8000000000000}
    return tirx.reinterpret(dtype, tirx.const(bits_of[dtype], "int" + dtype[5:]))


def infinity(dtype: str = "float32") -> Expr:
    from tvm import tirx

    bits_of = {"float32": 0x7F800000, "float64": 0x7FF0000000000000}
    return tirx.reinterpret(dtype, tirx.const(bits_of[dtype], "int" + dtype[5:]))


def magnitude(x: Expr) -> Expr:
    dtype = "int" + dtype_of(x)[5:]
    mask = 0x7FFFFFFF if dtype == "int32" else 0x7FFFFFFFFFFFFFFF
    return from_bits(bits(x) & const(mask, dtype))


def with_sign(value: Expr, sign: Expr) -> Expr:
    """``value``, which must not be negative, with the sign bit of ``sign``."""
    dtype = "int" + dtype_of(sign)[5:]
    mask = -(2**31) if dtype == "int32" else -(2**63)
    return from_bits(bits(value) | (bits(sign) & const(mask, dtype)))


# -------------------------------------------------------------------- exponentials


def _power(exponent: Expr) -> Expr:
    """2 to an integer between the least and the greatest normal exponent."""
    if dtype_of(exponent) == "int32":
        return from_bits((exponent + const(127, "int32")) << const(23, "int32"))
    return from_bits((exponent + const(1023, "int64")) << const(52, "int64"))


def _reduced(x: Expr, use: Callable[[Expr, Expr, Expr], Expr]) -> Expr:
    """``use(n, r, rest)`` with x = n·ln 2 + r, n an integer, and exp(r) = 1 + r + rest."""
    wide = dtype_of(x) == "float64"
    whole = "int64" if wide else "int32"
    dtype = dtype_of(x)
    magic = const(MAGIC64 if wide else MAGIC32, dtype)
    origin = 0x4338000000000000 if wide else 0x4B400000
    high, low = (LN2_HIGH64, LN2_LOW64) if wide else (LN2_HIGH32, LN2_LOW32)

    def shifted(t: Expr) -> Expr:
        return let(t - magic, lambda f: let((x - f * const(high, dtype)) - f * const(low, dtype), tail(t)))

    def tail(t: Expr) -> Callable[[Expr], Expr]:
        def of(r: Expr) -> Expr:
            n = bits(t) - const(origin, whole)
            rest = r * r * horner(r, EXP64 if wide else EXP32)
            return let(n, lambda m: use(m, r, rest))

        return of

    return let(x * const(LOG2E, dtype) + magic, shifted)


def clamp(x: Expr, low: float, high: float) -> Expr:
    """NaN stays NaN, which ``min`` and ``max`` do not promise."""
    dtype = dtype_of(x)

    def lower(v: Expr) -> Expr:
        return select(v < const(low, dtype), const(low, dtype), v)

    def upper(v: Expr) -> Expr:
        return select(v > const(high, dtype), const(high, dtype), v)

    return let(x, lambda v: let(lower(v), upper))


def clamp_ints(x: Expr, low: int, high: int) -> Expr:
    from tvm import tirx

    dtype = dtype_of(x)
    return tirx.min(tirx.max(x, const(low, dtype)), const(high, dtype))


def _raised(value: Expr, n: Expr) -> Expr:
    """``value``, near 1, times 2^n: n is added to its exponent. Canonical NaN stays, for then n is nothing."""
    shift = 52 if dtype_of(value) == "float64" else 23
    return from_bits(bits(value) + (n << const(shift, dtype_of(n))))


def _exp(x: Expr) -> Expr:
    """Where the result is a normal number; anything elsewhere."""
    one = const(1.0, dtype_of(x))
    return _reduced(x, lambda n, r, rest: _raised(one + (r + rest), n))


def exp(x: Expr) -> Expr:
    """The whole range: infinity above, zero below (also for what would be a denormal)."""
    low, high = (-708.39, 709.7827128933840) if dtype_of(x) == "float64" else (-87.33654, 88.72283)

    def whole(v: Expr) -> Expr:
        dtype = dtype_of(v)
        value = select(v > const(high, dtype), infinity(dtype), _exp(v))
        return select(v < const(low, dtype), const(0.0, dtype), value)

    return let(x, whole)


def exp_negative(x: Expr) -> Expr:
    """For arguments that are at most 0 (or NaN): what softmax needs. Below -87.3 it gives 0."""
    floor = -708.39 if dtype_of(x) == "float64" else -87.33654

    def whole(v: Expr) -> Expr:
        return select(v < const(floor, dtype_of(v)), const(0.0, dtype_of(v)), _exp(v))

    return let(x, whole)


def expm1(x: Expr) -> Expr:
    dtype = dtype_of(x)
    half, two = const(0.5, dtype), const(2.0, dtype)
    low, high, limit = (-40.0, 709.9, 709.782712893384) if dtype == "float64" else (-25.0, 88.9, 88.72283)

    def scale(n: Expr, r: Expr, rest: Expr) -> Expr:
        # halved and doubled again, so that the greatest exponent does not overflow half-way
        return let(_power(n - const(1, dtype_of(n))), lambda p: ((r + rest) * p + (p - half)) * two)

    def whole(v: Expr) -> Expr:
        inner = let(clamp(v, low, high), lambda w: _reduced(w, scale))
        inner = select(v > const(limit, dtype), infinity(dtype), inner)
        # zero keeps its sign
        return select(v == const(0.0, dtype), v, inner)

    return let(x, whole)


# -------------------------------------------------------------------- logarithms


def log(x: Expr) -> Expr:
    """-inf at 0, NaN below, inf at inf; denormals are scaled up first."""
    if dtype_of(x) == "float64":
        return log64(x)
    tiny, up = const(1.1754944e-38), const(8388608.0)

    def start(v: Expr) -> Expr:
        small = v < tiny
        return let(
            select(small, v * up, v),
            lambda w: let(select(small, const(-23.0), const(0.0)), lambda shift: special(v, body(w, shift))),
        )

    def body(w: Expr, shift: Expr) -> Expr:
        def split(e: Expr) -> Expr:
            fraction = from_bits(bits(w) - (e << const(23, "int32"))) - const(1.0)
            return let(cast(e, "float32") + shift, lambda k: let(fraction, lambda f: series(f, k)))

        # 0x3F3504F3 is √½: the fraction comes to lie in [√½, √2)
        return let((bits(w) - const(0x3F3504F3, "int32")) >> const(23, "int32"), split)

    def series(f: Expr, k: Expr) -> Expr:
        def sums(z: Expr) -> Expr:
            tail = f * z * horner(f, LOG32) + k * const(LN2_LOW32)
            return (f - (const(0.5) * z - tail)) + k * const(LN2_HIGH32)

        return let(f * f, sums)

    def special(v: Expr, value: Expr) -> Expr:
        value = select(v == infinity(), v, value)
        value = select(v < const(0.0), nan(), value)
        value = select(v == const(0.0), const(0.0) - infinity(), value)
        return unless_nan(v, value)

    return let(x, start)


def log64(x: Expr) -> Expr:
    tiny, up = const(2.2250738585072014e-308, "float64"), const(18014398509481984.0, "float64")
    zero, one, two = (const(c, "float64") for c in (0.0, 1.0, 2.0))

    def start(v: Expr) -> Expr:
        small = v < tiny
        return let(
            select(small, v * up, v),
            lambda w: let(select(small, const(-54.0, "float64"), zero), lambda s: special(v, body(w, s))),
        )

    def body(w: Expr, shift: Expr) -> Expr:
        def split(e: Expr) -> Expr:
            fraction = from_bits(bits(w) - (e << const(52, "int64"))) - one
            # through 32 bits: few processors convert 64-bit integers in vectors
            return let(cast(cast(e, "int32"), "float64") + shift, lambda k: let(fraction, lambda f: series(f, k)))

        return let((bits(w) - const(0x3FE6A09E667F3BCD, "int64")) >> const(52, "int64"), split)

    def series(f: Expr, k: Expr) -> Expr:
        return let(f / (two + f), lambda s: let(s * s, lambda t: total(f, k, s, t)))

    def total(f: Expr, k: Expr, s: Expr, t: Expr) -> Expr:
        # log(1+f) = f - s·(f - t·R): the leading f is exact
        return k * const(LN2_HIGH64, "float64") + (
            f - (s * (f - t * horner(t, LOG64)) - k * const(LN2_LOW64, "float64"))
        )

    def special(v: Expr, value: Expr) -> Expr:
        value = select(v == infinity("float64"), v, value)
        value = select(v < zero, nan("float64"), value)
        value = select(v == zero, zero - infinity("float64"), value)
        return unless_nan(v, value)

    return let(x, start)


def log1p(x: Expr) -> Expr:
    """log(u)·x/(u-1) with u = 1 + x: the rounding of u cancels."""
    dtype = dtype_of(x)
    one = const(1.0, dtype)

    def whole(v: Expr) -> Expr:
        return let(one + v, lambda u: select(u == one, v, select(u == infinity(dtype), u, ratio(v, u))))

    def ratio(v: Expr, u: Expr) -> Expr:
        return let(u - one, lambda d: log(u) * (v / select(d == const(0.0, dtype), one, d)))

    return let(x, whole)


# -------------------------------------------------------------------- activations


def sigmoid(x: Expr) -> Expr:
    dtype = dtype_of(x)
    one, zero = const(1.0, dtype), const(0.0, dtype)
    limit = 708.0 if dtype == "float64" else 87.68

    def scale(n: Expr, r: Expr, rest: Expr) -> Expr:
        return one / (one + _raised(one + (r + rest), n))

    def whole(v: Expr) -> Expr:
        inner = let(zero - clamp(v, -limit, limit), lambda w: _reduced(w, scale))
        return select(v < const(-limit, dtype), zero, inner)

    return let(x, whole)


def tanh(x: Expr) -> Expr:
    """From expm1(-2|x|), which keeps relative precision near zero."""
    dtype = dtype_of(x)
    one, two = const(1.0, dtype), const(2.0, dtype)

    def scale(n: Expr, r: Expr, rest: Expr) -> Expr:
        return let(
            _power(n), lambda p: let((r + rest) * p + (p - one), lambda e: (const(0.0, dtype) - e) / (two + e))
        )

    def whole(v: Expr) -> Expr:
        arg = clamp(magnitude(v), 0.0, 25.0 if dtype == "float64" else 12.0) * const(-2.0, dtype)
        return with_sign(magnitude(let(arg, lambda w: _reduced(w, scale))), v)

    return let(x, whole)


def erf(x: Expr) -> Expr:
    def whole(v: Expr) -> Expr:
        return let(magnitude(v), lambda a: let(clamp(a, 0.0, 4.0), lambda c: parts(v, a, c)))

    def parts(v: Expr, a: Expr, c: Expr) -> Expr:
        small = let(v * v, lambda t: v + v * horner(t, ERF_SMALL))
        large = const(1.0) - exp_negative(horner(c, ERF_LARGE))
        return select(a < const(0.92), small, with_sign(large, v))

    return let(x, whole)


def erf_fast(x: Expr) -> Expr:
    """Within 4e-7, and just -1 below: enough where 1 is added to it, at less than half the price."""
    end = const(3.925)

    def parts(c: Expr) -> Expr:
        return let(c * c, lambda t: (c * horner(t, ERF_TOP)) / horner(t, ERF_BOTTOM))

    def whole(v: Expr) -> Expr:
        return select(v < const(-3.925), const(-1.0), let(select(v > end, end, v), parts))

    return let(x, whole)


def softplus(x: Expr) -> Expr:
    """max(x, 0) + log1p(exp(-|x|)): never overflows."""
    dtype = dtype_of(x)
    zero = const(0.0, dtype)

    def whole(v: Expr) -> Expr:
        return select(v < zero, zero, v) + log1p(exp_negative(zero - magnitude(v)))

    return let(x, whole)


# -------------------------------------------------------------------- circular functions


def _quarter(x: Expr, use: Callable[[Expr, Expr], Expr]) -> Expr:
    """``use(quadrant, rest)`` for a float32, reduced in float64.

    Good to the last places up to about a hundred million; beyond, float32 itself has lost the angle.
    """

    def turns(w: Expr) -> Expr:
        return let(
            w * const(0.6366197723675814, "float64") + const(MAGIC64, "float64"),
            lambda t: let(t - const(MAGIC64, "float64"), lambda k: rest(w, t, k)),
        )

    def rest(w: Expr, t: Expr, k: Expr) -> Expr:
        angle = (w - k * const(1.5707963267341256, "float64")) - k * const(6.077100506506192e-11, "float64")
        quadrant = cast(bits(t) & const(3, "int64"), "int32")
        return let(quadrant, lambda q: let(cast(angle, "float32"), lambda r: use(q, r)))

    return let(cast(x, "float64"), turns)


def _circular(x: Expr, turn: int) -> Expr:
    def use(q: Expr, r: Expr) -> Expr:
        return let(r * r, lambda z: let(q + const(turn, "int32"), lambda k: choose(r, z, k)))

    def choose(r: Expr, z: Expr, k: Expr) -> Expr:
        sine = r + r * z * horner(z, SIN)
        cosine = const(1.0) + (z * z * horner(z, COS) - const(0.5) * z)
        value = select((k & const(1, "int32")) == const(0, "int32"), sine, cosine)
        return from_bits(bits(value) ^ ((k & const(2, "int32")) << const(30, "int32")))

    return _quarter(x, use)


def sin(x: Expr) -> Expr:
    return _circular(x, 0)


def cos(x: Expr) -> Expr:
    return _circular(x, 1)


def tan(x: Expr) -> Expr:
    return let(x, lambda v: sin(v) / cos(v))


def atan(x: Expr) -> Expr:
    def whole(v: Expr) -> Expr:
        return let(magnitude(v), lambda a: with_sign(fold(a), v))

    def fold(a: Expr) -> Expr:
        # π/2 - atan(1/a) above tan(3π/8), π/4 + atan((a-1)/(a+1)) above tan(π/8)
        big, middle = a > const(2.414213562373095), a > const(0.4142135623730951)
        reduced = select(big, const(-1.0) / a, select(middle, (a - const(1.0)) / (a + const(1.0)), a))
        base = select(big, const(1.5707963267948966), select(middle, const(0.7853981633974483), const(0.0)))
        return let(reduced, lambda r: let(r * r, lambda z: base + (r + r * z * horner(z, ATAN))))

    return let(x, whole)


def atan2(y: Expr, x: Expr) -> Expr:
    """Zeros, infinities and signs as C says."""
    pi, zero = const(3.141592653589793), const(0.0)

    def signs(b: Expr, a: Expr) -> Expr:
        return let(magnitude(b), lambda v: let(magnitude(a), lambda u: inner(b, a, v, u)))

    def inner(b: Expr, a: Expr, v: Expr, u: Expr) -> Expr:
        infinite = both(v == infinity(), u == infinity())
        ratio = select(infinite, const(1.0), v / u)
        angle = select(both(v == zero, u == zero), zero, atan(ratio))
        negative = bits(a) < const(0, "int32")
        positive = let(angle, lambda t: select(negative, pi - t, t))
        return select(either(is_nan(a), is_nan(b)), a + b, with_sign(positive, b))

    return let(y, lambda b: let(x, lambda a: signs(b, a)))


def asin(x: Expr) -> Expr:
    from tvm import tirx

    def whole(v: Expr) -> Expr:
        return let(magnitude(v), lambda a: with_sign(parts(a), v))

    def parts(a: Expr) -> Expr:
        upper = a > const(0.5)
        return let(select(upper, const(0.5) * (const(1.0) - a), a * a), lambda z: ends(a, upper, z))

    def ends(a: Expr, upper: Expr, z: Expr) -> Expr:
        def value(r: Expr) -> Expr:
            small = r + r * z * horner(z, ASIN)
            return let(small, lambda s: select(upper, const(1.5707963267948966) - (s + s), s))

        return let(select(upper, tirx.sqrt(z), a), value)

    return let(x, lambda v: unless_nan(v, select(magnitude(v) > const(1.0), nan(), whole(v))))


def acos(x: Expr) -> Expr:
    """Through the half angle above ½, where π/2 - asin would lose digits."""
    from tvm import tirx

    half_pi = const(1.5707963267948966)

    def whole(v: Expr) -> Expr:
        near = let(tirx.sqrt(const(0.5) * (const(1.0) - v)), lambda h: const(2.0) * asin(h))
        return select(v > const(0.5), near, half_pi - asin(v))

    return let(x, whole)


# -------------------------------------------------------------------- by way of float64


def by64(function: Callable[..., Expr], *args: Expr) -> Expr:
    """A float32 function computed in float64 and rounded once."""
    return cast(function(*(cast(a, "float64") for a in args)), "float32")


def sinh64(x: Expr) -> Expr:
    def half(e: Expr) -> Expr:
        return const(0.5, "float64") * (e + e / (e + const(1.0, "float64")))

    def whole(v: Expr) -> Expr:
        return with_sign(magnitude(let(expm1(clamp(magnitude(v), 0.0, 200.0)), half)), v)

    return let(x, whole)


def cosh64(x: Expr) -> Expr:
    half = const(0.5, "float64")
    return let(exp(clamp(magnitude(x), 0.0, 200.0)), lambda e: half * e + half / e)


def asinh64(x: Expr) -> Expr:
    from tvm import tirx

    one = const(1.0, "float64")

    def whole(v: Expr) -> Expr:
        return let(magnitude(v), lambda a: with_sign(magnitude(inner(a)), v))

    def inner(a: Expr) -> Expr:
        return log1p(a + a * a / (one + tirx.sqrt(a * a + one)))

    # beyond 1e18 the square would swallow the infinity; log(2a) is exact there
    def ends(v: Expr) -> Expr:
        return select(magnitude(v) == infinity("float64"), v, whole(v))

    return let(x, ends)


def acosh64(x: Expr) -> Expr:
    from tvm import tirx

    one = const(1.0, "float64")

    def whole(v: Expr) -> Expr:
        d = v - one
        return let(d, lambda t: log1p(t + tirx.sqrt(t * (v + one))))

    return let(x, lambda v: select(v < one, nan("float64"), select(v == infinity("float64"), v, whole(v))))


def atanh64(x: Expr) -> Expr:
    one, half = const(1.0, "float64"), const(0.5, "float64")
    return let(x, lambda v: half * log1p((v + v) / (one - v)))


def pow64(base: Expr, exponent: Expr) -> Expr:
    """C's ``pow`` on float64 variables, except that results are good to float32 only."""
    from tvm import tirx

    zero, one = const(0.0, "float64"), const(1.0, "float64")

    def whole(b: Expr, y: Expr) -> Expr:
        truncated = tirx.trunc(y)
        half = y * const(0.5, "float64")
        integral = truncated == y
        odd = both(integral, tirx.trunc(half) != half)
        power = let(y * log64(magnitude(b)), exp)
        signed = let(power, lambda p: select(both(bits(b) < const(0, "int64"), odd), zero - p, p))
        finite = magnitude(b) != infinity("float64")
        value = select(both(b < zero, finite, tirx.Not(integral)), nan("float64"), signed)
        turn = both(b == const(-1.0, "float64"), magnitude(y) == infinity("float64"))
        return select(either(y == zero, b == one, turn), one, value)

    return let(base, lambda b: let(exponent, lambda y: whole(b, y)))
