"""Stand-ins for a system's own libraries, made on the spot from the names of what is in them.

A linker only wants to know which library a function will be found in. So Windows (import libraries from lists of
names) and Android (empty shared objects of the right name) need nothing of those systems on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

Call = Callable[[Sequence[str]], None]

_BOTH = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh",
    "erf", "erfc", "exp", "exp2", "expm1", "fdim", "floor", "fma", "fmax", "fmin", "fmod", "frexp", "hypot",
    "ldexp", "lgamma", "log", "log10", "log1p", "log2", "logb", "lrint", "lround", "modf", "nearbyint",
    "nextafter", "pow", "remainder", "rint", "round", "scalbn", "sin", "sinh", "sqrt", "tan", "tanh",
    "tgamma", "trunc",
)  # fmt: skip

WINDOWS = {
    "ucrtbase.dll": ("memcpy", "memmove", "memset", "memcmp", *_BOTH, *(f"{name}f" for name in _BOTH)),
    "kernel32.dll": ("Sleep",),
}
"""The C library of every Windows since 10, and what the pool of threads waits with."""


def windows(zig: Sequence[str], work: Path, call: Call) -> list[str]:
    """Import libraries, as arguments for the linker."""
    made = []
    for dll, names in WINDOWS.items():
        listing = work / f"{dll}.def"
        listing.write_text("\n".join([f"LIBRARY {dll}", "EXPORTS", *names]) + "\n", "utf-8")
        library = work / f"{dll}.a"
        call([*zig, "dlltool", "-d", str(listing), "-l", str(library), "-m", "i386:x86-64"])
        made.append(str(library))
    return made


def shared(compiler: Sequence[str], names: Sequence[str], work: Path, call: Call) -> list[str]:
    """Empty shared objects, as arguments for the linker: what is needed from them stays open until it is loaded."""
    folder = work / "stubs"
    folder.mkdir(exist_ok=True)
    source = folder / "empty.c"
    source.write_text("", "utf-8")
    made = []
    for name in names:
        path = folder / name
        call([*compiler, "-shared", "-nostdlib", f"-Wl,-soname,{name}", str(source), "-o", str(path)])
        made.append(str(path))
    return made
