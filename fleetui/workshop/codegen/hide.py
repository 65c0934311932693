"""Takes kernels out of an object file's exports, where the linker cannot be told to: Windows and macOS.

LLVM marks every kernel as visible, but only the interface of a model shall be. A Windows object asks the linker
for exports in the text of its ``.drectve`` section, overwritten here with spaces; a Mach-O object has a bit for it
in every symbol. (Linux' linker takes a list.)
"""

from __future__ import annotations

import struct
from pathlib import Path

from fleetui.common.domain.errors import BugError

COFF_HEADER = struct.Struct("<HHIIIHH")
COFF_SECTION = struct.Struct("<8sIIIIIIHHI")
MACH_HEADER = struct.Struct("<IIIIIIII")
MACH_MAGIC = 0xFEEDFACF
MACH_SYMBOL = struct.Struct("<IBBHQ")
LC_SYMTAB = 2
EXTERNAL, PRIVATE, SECTION_KIND, KIND, WEAK = 0x01, 0x10, 0x0E, 0x0E, 0x80


def windows(path: Path) -> None:
    data = bytearray(path.read_bytes())
    _machine, sections, _time, _symbols, _count, optional, _flags = COFF_HEADER.unpack_from(data)
    at = COFF_HEADER.size + optional
    if at + sections * COFF_SECTION.size > len(data):
        raise BugError(f"{path.name} is not a Windows object file")
    for index in range(sections):
        name, _, _, size, start, *_rest = COFF_SECTION.unpack_from(data, at + index * COFF_SECTION.size)
        if name.rstrip(b"\0") == b".drectve":
            data[start : start + size] = b" " * size
    path.write_bytes(data)


def macos(path: Path) -> None:
    data = bytearray(path.read_bytes())
    magic, _, _, _, commands, *_rest = MACH_HEADER.unpack_from(data)
    if magic != MACH_MAGIC:
        raise BugError(f"{path.name} is not a 64-bit Mach-O object file")
    at = MACH_HEADER.size
    for _ in range(commands):
        command, size, symbols, count = struct.unpack_from("<IIII", data, at)
        if command == LC_SYMTAB:
            for place in range(symbols, symbols + count * MACH_SYMBOL.size, MACH_SYMBOL.size):
                name, kind, section, about, value = MACH_SYMBOL.unpack_from(data, place)
                if kind & EXTERNAL and kind & KIND == SECTION_KIND:  # defined here
                    # A weak definition would be looked for in the system's libraries first.
                    MACH_SYMBOL.pack_into(data, place, name, kind | PRIVATE, section, about & ~WEAK, value)
        at += size
    path.write_bytes(data)
