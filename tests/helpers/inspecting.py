"""Files that want to do harm: damaged models from seeds, and archives that are not what they say."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

EXTREMES = [struct.pack("<i", v) for v in (0, -1, 2**31 - 1, -(2**31), 65536)] + [b"\xff" * 8, b"\x80" * 4]


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Cut, flipped, overwritten, doubled, swapped: like bad disks, and like people with bad intentions."""
    rng = random.Random(seed)
    for _ in range(count):
        made = bytearray(content)
        for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
            if not made:
                break
            at = rng.randrange(len(made))
            kind = rng.randrange(7)
            if kind == 0:
                del made[at:]
            elif kind == 1:
                made[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                value = rng.choice(EXTREMES)
                made[at : at + len(value)] = value
            elif kind == 3:
                del made[at : at + rng.randrange(1, 64)]
            elif kind == 4:
                made[at:at] = made[at : at + rng.randrange(1, 256)]
            elif kind == 5:
                other = rng.randrange(len(made))
                size = rng.randrange(1, 64)
                made[at : at + size] = made[other : other + size]
            else:
                made[at : at + 8] = bytes(rng.randrange(256) for _ in range(8))
        yield bytes(made)


def inner_mutations(path: Path, count: int, seed: int) -> Iterator[dict[str, bytes]]:
    """An archive's members, one of them damaged: the checksums hold, what is in them does not."""
    with zipfile.ZipFile(path) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    rng = random.Random(seed)
    worth = [n for n in members if n.endswith(".json") and len(members[n]) > 64] or [
        n for n in members if members[n]
    ]
    for number in range(count):
        name = rng.choice(worth)
        yield {**members, name: next(mutations(members[name], 1, seed * 1000 + number))}


def zipped(path: Path, members: dict[str, bytes], *, packed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path
