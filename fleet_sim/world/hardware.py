"""Kinds of simulated hardware, by the names of the target catalogue, and the places where they stand. Data only."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30
GB = 10**9


@dataclass(frozen=True, slots=True)
class Hardware:
    target: str
    share: float  # of the fleet
    slowness: float  # how much longer an inference takes than on one core of the reference, x86-64-v3
    cores: int
    memory_bytes: tuple[int, ...]  # sizes it is sold with
    disk_bytes: tuple[int, ...]
    idle_cpu: float
    warmth: float  # °C above the surroundings when idle
    heat: float  # °C more at full load
    throttles_at: float  # °C


HARDWARE: tuple[Hardware, ...] = (
    Hardware("rpi4-64", 0.30, 6.2, 4, (2 * GIB, 4 * GIB, 8 * GIB), (32 * GB, 64 * GB), 0.06, 14.0, 34.0, 80.0),
    Hardware("rpi5-64", 0.18, 2.7, 4, (4 * GIB, 8 * GIB), (64 * GB, 128 * GB), 0.04, 15.0, 36.0, 80.0),
    Hardware("jetson-orin", 0.14, 1.9, 6, (8 * GIB,), (64 * GB, 128 * GB), 0.08, 18.0, 30.0, 97.0),
    Hardware("x86-64-v3", 0.18, 1.0, 4, (8 * GIB, 16 * GIB), (128 * GB, 256 * GB), 0.05, 16.0, 38.0, 95.0),
    Hardware("imx8mp", 0.14, 5.4, 4, (2 * GIB, 4 * GIB), (16 * GB, 32 * GB), 0.07, 12.0, 24.0, 90.0),
    Hardware("bbb-armv7", 0.06, 24.0, 1, (GIB // 2,), (4 * GB,), 0.15, 10.0, 20.0, 90.0),
)


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    country: str
    latitude: float
    longitude: float
    share: float
    mean_temperature: float  # °C over the year, in the shade
    swing: float  # °C between day and night
    climate: float  # by how much the weather moves the inputs, in standard deviations


SITES: tuple[Site, ...] = (
    Site("Hamburg", "DE", 53.5511, 9.9937, 0.20, 9.5, 7.0, 0.10),
    Site("Gothenburg", "SE", 57.7089, 11.9746, 0.12, 8.0, 6.0, 0.10),
    Site("Eindhoven", "NL", 51.4416, 5.4697, 0.15, 10.5, 8.0, 0.08),
    Site("Lyon", "FR", 45.7640, 4.8357, 0.14, 12.5, 10.0, 0.08),
    Site("Turin", "IT", 45.0703, 7.6869, 0.12, 13.0, 10.0, 0.07),
    Site("Porto", "PT", 41.1579, -8.6291, 0.10, 15.0, 8.0, 0.09),
    Site("Katowice", "PL", 50.2649, 19.0238, 0.11, 8.5, 9.0, 0.09),
    Site("Izmir", "TR", 38.4237, 27.1428, 0.06, 18.0, 11.0, 0.12),
)

# (version, share): most are up to date, some have been left behind, a few try the next one
FIRMWARE: tuple[tuple[str, float], ...] = (
    ("2.4.2", 0.58),
    ("2.4.0", 0.17),
    ("2.3.5", 0.15),
    ("2.2.9", 0.05),
    ("2.5.0-rc1", 0.05),
)
