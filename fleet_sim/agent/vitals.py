"""How this machine is: processor, memory, disk, temperature, uptime, read from Linux's ``/proc`` and ``/sys``.

NaN where the machine does not tell, or the figure makes no sense. Reads a handful of small files and keeps the
last processor times; nothing else. Used from one thread.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from fleet_sim.agent.events import NAN, Vitals


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change; 0 where unknown."""

    cores: int
    memory_bytes: int
    disk_bytes: int


class VitalSigns:
    """``root`` is where ``/proc`` and ``/sys`` lie; ``disk`` is a folder on the disk that matters."""

    def __init__(self, disk: Path, root: Path = Path("/")) -> None:
        self._disk = disk
        self._proc = root / "proc"
        self._sys = root / "sys"
        self._last_times: tuple[int, int] | None = None

    def machine(self) -> Machine:
        total = 0
        try:
            space = os.statvfs(self._disk)
            total = space.f_frsize * space.f_blocks
        except OSError:
            pass
        memory = self._memory().get("MemTotal", 0)
        return Machine(os.cpu_count() or 0, memory, total)

    def read(self) -> Vitals:
        return Vitals(
            cpu=self._cpu(),
            memory=self._memory_share(),
            disk=self._disk_share(),
            temperature=self._temperature(),
            uptime_s=self._uptime(),
        )

    # ------------------------------------------------------------ one figure each

    def _cpu(self) -> float:
        """Busy share since the last reading; NaN at the first one."""
        fields = _text(self._proc / "stat").partition("\n")[0].split()
        if len(fields) < 6 or fields[0] != "cpu" or not all(f.isdigit() for f in fields[1:]):
            return NAN
        times = [int(f) for f in fields[1:9]]
        idle, total = times[3] + times[4], sum(times)
        last, self._last_times = self._last_times, (idle, total)
        if last is None or total <= last[1]:
            return NAN
        return min(max(1.0 - (idle - last[0]) / (total - last[1]), 0.0), 1.0)

    def _memory(self) -> dict[str, int]:
        found = {}
        for line in _text(self._proc / "meminfo").splitlines():
            name, _, rest = line.partition(":")
            number = rest.split()[:1]
            if number and number[0].isdigit():
                found[name] = int(number[0]) * 1024
        return found

    def _memory_share(self) -> float:
        memory = self._memory()
        total, available = memory.get("MemTotal", 0), memory.get("MemAvailable")
        if not total or available is None:
            return NAN
        return min(max(1.0 - available / total, 0.0), 1.0)

    def _disk_share(self) -> float:
        try:
            space = os.statvfs(self._disk)
        except OSError:
            return NAN
        # As df counts: what is kept for root is neither used nor free.
        used = space.f_blocks - space.f_bfree
        usable = used + space.f_bavail
        return used / usable if usable else NAN

    def _temperature(self) -> float:
        """The warmest zone; on some boards they are listed under hwmon only."""
        found = [NAN]
        for pattern in ("class/thermal/thermal_zone*/temp", "class/hwmon/hwmon*/temp*_input"):
            for path in self._sys.glob(pattern):
                text = _text(path).strip()
                if text.lstrip("-").isdigit():
                    found.append(int(text) / 1000.0)
            known = [t for t in found if -40.0 < t < 150.0 and t != 0.0]
            if known:
                return max(known)
        return NAN

    def _uptime(self) -> float:
        first = _text(self._proc / "uptime").split()[:1]
        try:
            value = float(first[0]) if first else NAN
        except ValueError:
            return NAN
        return value if math.isfinite(value) and value >= 0 else NAN


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
