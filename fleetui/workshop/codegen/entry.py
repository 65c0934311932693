"""Writes the entry of a model in C: argument checks, then one call after another over the planned workspace.

The text is meant to be read: one function for each step, with the operator, what it computes and what it costs
above it. It knows kernels by their symbols only. What the host may split is decided here, from the target's
speed: a step that takes less time than waking a thread is never handed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from fleetui.workshop.codegen.accelerators import Foreign
from fleetui.workshop.codegen.program import Launch, Program, Ref, Space
from fleetui.workshop.graph.ir import BITS, Value
from fleetui.workshop.target import Target

WORKERS = 16
"""At most so many threads get scratch, or a workspace for a row, of their own; a target has no more than cores."""
PIECES = 64
"""Most pieces of a step."""
WORTH_NS = 4000.0
"""A step shorter than this (by the target's peak figures) stays on one thread."""
ALIGN = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows one call takes: ``fixed``, or any number, then ``fixed`` is what the kernels are made for.

    ``direct``: every kernel's parallel loop runs over the rows themselves, so any range of them is one call.
    """

    fixed: int
    any: bool = False
    direct: bool = False


def header() -> str:
    return resource("fleet_model.h")


def resource(name: str) -> str:
    return (files("fleetui.workshop.codegen") / "c" / name).read_text("utf-8")


def nanoseconds(launch: Launch, target: Target) -> float:
    """What a step takes at least, on one core."""
    return max(
        launch.kernel.flops / max(target.gflops, 1e-3), launch.kernel.moved / max(target.bandwidth, 1.0) * 1e9
    )


def write(
    program: Program,
    symbols: dict[str, str],
    target: Target,
    rows: Rows,
    *,
    prefix: str = "",
    embed: bool = False,
    pool: bool = True,
) -> str:
    """The whole C file. ``symbols`` maps keys of kernels to their names; ``embed`` puts the weights inside."""
    return _Writer(program, symbols, target, rows, prefix, embed).text(pool)


def said(words: str) -> str:
    """Words from a model's author, safe inside a comment."""
    return re.sub(r"[^A-Za-z0-9 _.,:+@\-\[\]()]", "_", words)[:100]


def seats(target: Target) -> int:
    """How many threads may be at work that need room of their own."""
    return max(1, min(WORKERS, target.cores))


def share_of(program: Program, rows: Rows, target: Target) -> int:
    """Workspace of a call; where a call goes through rows one by one, of each thread of it."""
    alone = rows.any and not rows.direct
    return program.work_bytes + program.scratch_bytes * (1 if alone else seats(target))


class _Writer:
    def __init__(
        self, program: Program, symbols: dict[str, str], target: Target, rows: Rows, prefix: str, embed: bool
    ) -> None:
        self.program = program
        self.symbols = symbols
        self.target = target
        self.rows = rows
        self.prefix = prefix
        self.embed = embed
        self.name = f"{prefix}_" if prefix else ""

    # ------------------------------------------------------------ the file

    def text(self, pool: bool) -> str:
        parts = [self._head(), self._prototypes(), self._data(), self._frame()]
        parts += [self._step(index, launch) for index, launch in enumerate(self.program.launches)]
        parts += [self._once(), self._checks(), self._rows() if self.rows.any else self._fixed(), self._exports()]
        if pool:
            parts.append('#include "pool.h"\n#include "python.h"')
        if self.target.os == "windows":
            parts.append('#include "windows.h"')
        return "\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        lines = [f"/* {said(self.program.graph.name)}, compiled for {said(self.target.name)}. Generated. */"]
        if self.prefix:
            lines.append(f"#define FM_MODEL {self.prefix}")
        lines.append('#include "fleet_model.h"')
        return "\n".join(lines) + "\n"

    def _prototypes(self) -> str:
        lines = []
        for kernel in self.program.kernels():
            pointers = ", ".join("void *" for _ in kernel.args)
            result = "int" if _fallible(kernel.func) else "void"
            joint = ", " if pointers else ""
            lines.append(f"{result} {self.symbols[kernel.key]}({pointers}{joint}int32_t lo, int32_t hi);")
        return "\n".join(lines) + "\n"

    def _data(self) -> str:
        """The weights as the compiler's own data, where they are few."""
        if not self.embed or not self.program.weights_bytes:
            return ""
        numbers = [str(byte) for piece in self.program.weight_bytes() for byte in piece]
        lines = [",".join(numbers[at : at + 32]) for at in range(0, len(numbers), 32)]
        return (
            f"static const unsigned char weights_[] __attribute__((aligned({ALIGN}))) = {{\n"
            + ",\n".join(lines)
            + "};\n"
        )

    def _frame(self) -> str:
        scratch = self.program.scratch_bytes
        return f"""\
/* What a step sees. i is its piece of n, so FROM..TO is its share of the loop. */
typedef struct {{
    const void *const *in;
    void *const *out;
    const char *w; /* weights */
    char *s;       /* workspace */
    char *own;     /* {scratch} bytes for each thread at work */
    int32_t rows;
    uint32_t seats; /* a bit for each thread at work that needs room of its own */
}} frame;
#define FROM(extent) ((int32_t)((int64_t)(extent) * i / n))
#define TO(extent) ((int32_t)((int64_t)(extent) * (i + 1) / n))
#define IN(k, at) ((void *)((const char *)f->in[k] + (at)))
#define OUT(k, at) ((void *)((char *)f->out[k] + (at)))
#define W(at) ((void *)(f->w + (at)))
#define S(at) ((void *)(f->s + (at)))
#define OWN(at) ((void *)(f->own + (int64_t)seat * {scratch} + (at)))
{self._seats()}"""

    def _seats(self) -> str:
        if not self.program.scratch_bytes and not (self.rows.any and not self.rows.direct):
            return ""
        return f"""\

#define SEATS {seats(self.target)}
static int32_t take_seat(uint32_t *taken) {{
    for (;;) {{
        uint32_t was = __atomic_load_n(taken, __ATOMIC_RELAXED);
        int32_t seat = was == ~0u ? SEATS : __builtin_ctz(~was);
        if (seat < SEATS && __atomic_compare_exchange_n(taken, &was, was | 1u << seat, 0, __ATOMIC_ACQUIRE,
                                                        __ATOMIC_RELAXED))
            return seat;
    }}
}}
static void leave_seat(uint32_t *taken, int32_t seat) {{
    __atomic_and_fetch(taken, ~(1u << seat), __ATOMIC_RELEASE);
}}
/* No more pieces at a time than there are seats: of a host that does not say how many threads it has, at all. */
__attribute__((unused)) static int32_t seated(const fm_host *host, int32_t n) {{
    int known = host && host->size >= sizeof(fm_host) && host->threads && host->threads <= SEATS;
    return known || n < SEATS ? n : SEATS;
}}
"""

    # ------------------------------------------------------------ steps

    def _step(self, index: int, launch: Launch) -> str:
        kernel = launch.kernel
        extent = "f->rows" if self.rows.direct else str(kernel.extent)
        pointers = [_pointer(ref) for ref in launch.refs]
        call = f"{self.symbols[kernel.key]}({', '.join([*pointers, f'FROM({extent})', f'TO({extent})'])})"
        fallible = _fallible(kernel.func)
        if _seated(launch):
            result = "int failed = " if fallible else ""
            body = (
                f"int32_t seat = take_seat(&f->seats);\n    {result}{call};\n    leave_seat(&f->seats, seat);\n"
                f"    return {'failed ? FM_KERNEL_FAILED : 0' if fallible else '0'};"
            )
        else:
            body = f"return {call} ? FM_KERNEL_FAILED : 0;" if fallible else f"{call};\n    return 0;"
        cost = f"{kernel.flops:,} operations" if kernel.flops else f"{kernel.moved:,} bytes"
        return (
            f"/* {index}: {said(launch.op)} [{said(launch.name)}], {cost} */\n"
            f"static int step_{index}(void *arg, int32_t i, int32_t n) {{\n"
            f"    frame *f = arg;\n    (void)f, (void)i, (void)n;\n"
            f"    {body}\n}}\n"
        )

    def _pieces(self, launch: Launch) -> int:
        """At most how many pieces a step may be cut into."""
        kernel = launch.kernel
        if nanoseconds(launch, self.target) < WORTH_NS:
            return 1
        return max(1, min(PIECES, kernel.extent // max(1, kernel.grain)))

    def _once(self) -> str:
        lines = [
            "static int split(const fm_host *host, int (*step)(void *, int32_t, int32_t), frame *f, int32_t most)",
            "{",
            "    int32_t n = 8;",
            "    if (host && host->size >= sizeof(fm_host) && host->threads) n = (int32_t)host->threads * 4;",
            "    if (n > most) n = most;",
            "    if (!host || n < 2) return step(f, 0, 1);",
            "    int code = host->parallel_for(host->ctx, step, f, n);",
            "    return !code ? 0 : code == FM_KERNEL_FAILED ? FM_KERNEL_FAILED : FM_HOST_FAILED;",
            "}",
            "",
            "static int once(frame *f, const fm_host *host) {",
            "    int code = 0;",
            "    (void)split, (void)host, (void)f;",
        ]
        for index, launch in enumerate(self.program.launches):
            most = self._pieces(launch)
            fallible = _fallible(launch.kernel.func)
            if self.rows.direct:
                share = f"f->rows / {max(1, launch.kernel.grain)}"
                wished = f"{share} < {PIECES} ? {share} : {PIECES}"
                run = f"split(host, step_{index}, f, {f'seated(host, {wished})' if _seated(launch) else wished})"
            elif most > 1:
                wished = f"seated(host, {most})" if _seated(launch) else str(most)
                run = f"split(host, step_{index}, f, {wished})"
            elif fallible:
                run = f"step_{index}(f, 0, 1)"
            else:
                lines.append(f"    step_{index}(f, 0, 1);")
                continue
            lines.append(f"    if ((code = {run})) return code;")
        lines += ["    return code;", "}", ""]
        return "\n".join(lines)

    # ------------------------------------------------------------ calls

    def _checks(self) -> str:
        graph = self.program.graph
        lines = [
            "static int check(const void *const *inputs, void *const *outputs, const void *weights,",
            "                 const void *workspace, const fm_host *host) {",
            "    if (host && (host->size < offsetof(fm_host, threads) || !host->parallel_for))",
            "        return FM_BAD_ARGUMENT;",
        ]
        for what, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
            if values:
                lines.append(f"    if (!{what}) return FM_BAD_ARGUMENT;")
            for index, value in enumerate(values):
                if not value.size:
                    continue
                lines.append(f"    if (!{what}[{index}]) return FM_BAD_ARGUMENT;")
                if (size := BITS[value.dtype] // 8) > 1:
                    lines.append(f"    if ((uintptr_t){what}[{index}] % {size}) return FM_MISALIGNED;")
        if self.program.weights_bytes and not self.embed:
            lines.append("    if (!weights) return FM_BAD_ARGUMENT;")
            lines.append(f"    if ((uintptr_t)weights % {ALIGN}) return FM_MISALIGNED;")
        if self._share():
            lines.append("    if (!workspace) return FM_BAD_ARGUMENT;")
            lines.append(f"    if ((uintptr_t)workspace % {ALIGN}) return FM_MISALIGNED;")
        lines += [
            "    (void)inputs, (void)outputs, (void)weights, (void)workspace, (void)host;",
            "    return 0;",
            "}",
        ]
        return "\n".join(lines) + "\n"

    def _share(self) -> int:
        """Workspace of one row, or of one call."""
        return share_of(self.program, self.rows, self.target)

    def _weights(self) -> str:
        return "(const char *)weights_" if self.embed and self.program.weights_bytes else "weights"

    def _fixed(self) -> str:
        return f"""\
FM_API size_t FM(workspace)(uint32_t rows) {{ return rows == {self.rows.fixed} ? {self._share()} : 0; }}

static int run(const void *const *inputs, void *const *outputs, uint32_t rows, const void *weights, void *workspace,
               const fm_host *host) {{
    int code = check(inputs, outputs, weights, workspace, host);
    if (code) return code;
    if (rows != {self.rows.fixed}) return FM_BAD_ROWS;
    char *own = (char *)workspace + {self.program.work_bytes};
    frame f = {{inputs, outputs, {self._weights()}, workspace, own, 0, 0}};
    return once(&f, host);
}}
"""

    def _rows(self) -> str:
        if self.rows.direct:
            return f"""\
FM_API size_t FM(workspace)(uint32_t rows) {{ return rows ? {self._share()} : 0; }}

static int run(const void *const *inputs, void *const *outputs, uint32_t rows, const void *weights, void *workspace,
               const fm_host *host) {{
    int code = check(inputs, outputs, weights, workspace, host);
    if (code) return code;
    if (!rows || rows > INT32_MAX) return FM_BAD_ROWS;
    frame f = {{inputs, outputs, {self._weights()}, workspace, workspace, (int32_t)rows, 0}};
    return once(&f, host);
}}
"""
        graph = self.program.graph
        return f"""\
FM_API size_t FM(workspace)(uint32_t rows) {{
    return (size_t)(rows < SEATS ? rows : SEATS) * {self._share()};
}}

/* Rows do not know of each other: every piece of them runs the whole model with its own share of the workspace. */
typedef struct {{
    const void *const *inputs;
    void *const *outputs;
    const char *weights;
    char *workspace;
    int32_t rows;
    uint32_t seats;
}} batch;

static int some_rows(void *arg, int32_t i, int32_t n) {{
    batch *b = arg;
    int32_t seat = take_seat(&b->seats);
    char *s = b->workspace + (int64_t)seat * {self._share()};
    int code = 0;
    for (int32_t row = FROM(b->rows); row < TO(b->rows) && !code; row++) {{
        {_row_pointers("const void *", "in", "inputs", graph.inputs)}
        {_row_pointers("void *", "out", "outputs", graph.outputs)}
        frame f = {{in, out, b->weights, s, s + {self.program.work_bytes}, 0, 0}};
        code = once(&f, 0);
    }}
    leave_seat(&b->seats, seat);
    return code;
}}

static int run(const void *const *inputs, void *const *outputs, uint32_t rows, const void *weights, void *workspace,
               const fm_host *host) {{
    int code = check(inputs, outputs, weights, workspace, host);
    if (code) return code;
    if (!rows || rows > INT32_MAX) return FM_BAD_ROWS;
    batch b = {{inputs, outputs, {self._weights()}, workspace, (int32_t)rows, 0}};
    int32_t n = seated(host, rows < {PIECES} ? (int32_t)rows : {PIECES});
    if (!host || n < 2) return some_rows(&b, 0, 1);
    code = host->parallel_for(host->ctx, some_rows, &b, n);
    return !code ? 0 : code == FM_KERNEL_FAILED ? FM_KERNEL_FAILED : FM_HOST_FAILED;
}}
"""

    def _exports(self) -> str:
        size = 0 if self.embed else self.program.weights_bytes
        return f"""\
FM_API uint32_t FM(abi)(void) {{ return FM_ABI; }}
FM_API size_t FM(weights)(void) {{ return {size}; }}
FM_API int FM(run)(const void *const *inputs, void *const *outputs, uint32_t rows, const void *weights,
                   void *workspace, const fm_host *host) {{
    return run(inputs, outputs, rows, weights, workspace, host);
}}
FM_API int FM(call)(const fm_bound *bound) {{
    if (!bound || bound->size < sizeof(fm_bound)) return FM_BAD_ARGUMENT;
    return run(bound->inputs, bound->outputs, bound->rows, bound->weights, bound->workspace, bound->host);
}}
"""


def _seated(launch: Launch) -> bool:
    return any(ref.space is Space.SCRATCH for ref in launch.refs)


def _fallible(func: object) -> bool:
    return isinstance(func, Foreign) and func.fallible


def _pointer(ref: Ref) -> str:
    match ref.space:
        case Space.INPUT:
            return f"IN({ref.index}, {ref.offset})"
        case Space.OUTPUT:
            return f"OUT({ref.index}, {ref.offset})"
        case Space.WEIGHTS:
            return f"W({ref.offset})"
        case Space.WORK:
            return f"S({ref.offset})"
        case Space.SCRATCH:
            return f"OWN({ref.offset})"


def _row_pointers(kind: str, name: str, source: str, values: list[Value]) -> str:
    if not values:
        return f"{kind}*{name} = 0;"
    char = "const char *" if kind.startswith("const") else "char *"
    items = ", ".join(f"({char})b->{source}[{k}] + (int64_t)row * {v.nbytes}" for k, v in enumerate(values))
    return f"{kind}{name}[] = {{{items}}};"
