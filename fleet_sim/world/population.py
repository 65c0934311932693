"""Who the simulated devices are: everything about them that does not change, from a seed.

Each trait is drawn from a stream of its own, so that device n of a seed is the same device in a fleet of any
size, in any slice of it, in a recorded past and in a live run. Columns are numpy arrays over the whole fleet;
:meth:`Population.columns` gives those that filters know.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

import fleetui
from fleet_sim.agent.config import AgentConfig, spread
from fleet_sim.agent.model import running
from fleet_sim.world.applications import APPLICATIONS, FEATURES, VERSIONS, fitted
from fleet_sim.world.hardware import FIRMWARE, HARDWARE, SITES
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.filters import DEVICES, Catalogue, Columns, parse
from fleetui.common.link.messages import Running

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
T = TypeVar("T")

MOST_DEVICES = 100_000

# What can be known of a device before it runs: these columns of the device table, and the tags.
COLUMNS = (
    "device",
    "name",
    "site",
    "target",
    "firmware",
    "agent",
    "cores",
    "memory_bytes",
    "disk_bytes",
    "handle",
    "model",
    "version",
    "variant",
)
CATALOGUE = Catalogue(
    name="simulated devices",
    search=DEVICES.search,
    tags=DEVICES.tags,
    fields=tuple(field for field in DEVICES.fields if field.column in COLUMNS),
)


@dataclass(frozen=True, eq=False)
class Population:
    """``n`` devices. Arrays are indexed by device; do not write to them."""

    seed: int
    fleet: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    tags: tuple[dict[str, str], ...]
    site: Indices
    hardware: Indices
    firmware: Indices
    application: Indices
    version: Indices
    memory_bytes: I64
    disk_bytes: I64
    slowness: F64  # hardware class and the device's own luck
    rows_per_s: F64  # at full activity
    offset: F32  # (n, features): how its sensors differ from their siblings, in σ
    gain: F64  # how much the time of day moves its inputs
    wear: F64  # how much more often its rare classes occur
    base_memory: F64
    base_disk: F64
    disk_per_day: F64
    indoors: F64  # share of the weather that reaches it
    clock_error_s: F64
    drop_every_s: F64  # mean time between lost connections; inf for a cable that holds
    drop_for_s: F64  # mean length of such an outage
    starts: F64  # hour of local time at which it is switched on; NaN if it always runs
    runs_h: F64
    uptime_days: F64  # typical time between restarts
    phase: F64  # (n, 4) in 0..1: where its own slow movements stand

    @property
    def n(self) -> int:
        return len(self.ids)

    def running(self, i: int) -> Running:
        """The model behind device ``i``'s handle."""
        app = int(self.application[i])
        model = fitted(app, int(self.version[i]), self.seed)
        plain = running(model, APPLICATIONS[app].handle)
        return msgspec.structs.replace(plain, variant=f"{HARDWARE[self.hardware[i]].target}/fp32")

    def config(self, i: int, *, beat_s: float, window_s: float) -> AgentConfig:
        hardware = HARDWARE[self.hardware[i]]
        return AgentConfig(
            fleet=self.fleet,
            device=self.ids[i],
            agent=fleetui.__version__,
            target=hardware.target,
            site=SITES[self.site[i]].name,
            firmware=FIRMWARE[self.firmware[i]][0],
            name=self.names[i],
            cores=hardware.cores,
            memory_bytes=int(self.memory_bytes[i]),
            disk_bytes=int(self.disk_bytes[i]),
            tags=self.tags[i],
            beat_s=beat_s,
            window_s=window_s,
            spread_s=spread(window_s),
        )

    def boot(self, i: int, number: int, stream: str = "live") -> str:
        """The id of a device's boot: never the same for two boots of a seed, told apart by ``stream``."""
        a = zlib.crc32(f"{self.seed}/{stream}/{self.ids[i]}/{number}".encode())
        b = zlib.crc32(f"{number}/{self.ids[i]}/{stream}/{self.seed}/b".encode())
        return f"{stream[:1]}{number}-{a:08x}{b:08x}"

    def columns(self) -> Columns:
        """For filters (:data:`CATALOGUE`)."""
        texts: dict[str, list[str]] = {
            "device": list(self.ids),
            "name": list(self.names),
            "site": [SITES[s].name for s in self.site],
            "target": [HARDWARE[h].target for h in self.hardware],
            "firmware": [FIRMWARE[f][0] for f in self.firmware],
            "agent": [fleetui.__version__] * self.n,
            "handle": [APPLICATIONS[a].handle for a in self.application],
            "model": [APPLICATIONS[a].model for a in self.application],
            "version": [VERSIONS[v][0] for v in self.version],
            "variant": [f"{HARDWARE[h].target}/fp32" for h in self.hardware],
        }
        columns: dict[str, npt.NDArray[np.generic]] = {
            name: np.array(values, dtype=object) for name, values in texts.items()
        }
        columns["tags"] = np.array(self.tags, dtype=object)
        columns["cores"] = np.array([HARDWARE[h].cores for h in self.hardware])
        columns["memory_bytes"] = self.memory_bytes
        columns["disk_bytes"] = self.disk_bytes
        return columns

    def select(self, filter_text: str, devices: Sequence[str] = ()) -> Indices:
        """Devices that the filter takes, and those named. Raises ``FilterError`` or ``ConfigError``."""
        chosen = np.zeros(self.n, dtype=np.bool_)
        if filter_text.strip() or not devices:
            chosen |= parse(filter_text, CATALOGUE).mask(self.columns(), self.n, 0.0)
        if devices:
            place = {ident: i for i, ident in enumerate(self.ids)}
            for ident in devices:
                if ident not in place:
                    raise ConfigError(f"There is no simulated device {ident!r}", "Its id is in the device list")
                chosen[place[ident]] = True
        return np.flatnonzero(chosen)


def make(devices: int, seed: int, fleet: str = "demo") -> Population:
    """The fleet of a seed."""
    if not 1 <= devices <= MOST_DEVICES:
        raise ConfigError(f"A fleet of {devices} devices cannot be simulated", f"Ask for 1 to {MOST_DEVICES}")
    n = devices
    draw = _Draw(seed, n)
    site = draw.choice("site", [s.share for s in SITES])
    hardware = draw.choice("hardware", [h.share for h in HARDWARE])
    application = draw.choice("application", [a.share for a in APPLICATIONS])
    # Small boards look after bearings and valves, not cameras.
    application = np.where((hardware == len(HARDWARE) - 1) & (application == 1), 0, application)
    ids = tuple(f"edge-{i + 1:04d}" for i in range(n))
    lines = 1 + draw.choice("line", [0.3, 0.25, 0.2, 0.15, 0.1])
    names, tags = _names(site, application, lines, draw)
    wired = draw.uniform("wired") < 0.7
    shift = draw.uniform("power") < 0.06
    memory, disk = draw.uniform("memory size"), draw.uniform("disk size")
    return Population(
        seed=seed,
        fleet=fleet,
        ids=ids,
        names=names,
        tags=tags,
        site=site,
        hardware=hardware,
        firmware=draw.choice("firmware", [share for _, share in FIRMWARE]),
        application=application,
        version=draw.choice("version", [share for _, share, _ in VERSIONS]),
        memory_bytes=np.array([_pick(HARDWARE[h].memory_bytes, u) for h, u in zip(hardware, memory, strict=True)]),
        disk_bytes=np.array([_pick(HARDWARE[h].disk_bytes, u) for h, u in zip(hardware, disk, strict=True)]),
        slowness=np.array([HARDWARE[h].slowness for h in hardware]) * np.exp(0.07 * draw.normal("slowness")),
        rows_per_s=np.array([APPLICATIONS[a].rows_per_s for a in application]) * np.exp(0.3 * draw.normal("rows")),
        offset=(0.15 * draw.normal("offset", FEATURES)).astype(np.float32),
        gain=1.0 + 0.2 * draw.normal("gain"),
        wear=np.exp(0.35 * draw.normal("wear")),
        base_memory=0.30 + 0.25 * draw.uniform("memory"),
        base_disk=0.18 + 0.45 * draw.uniform("disk") ** 1.5,
        disk_per_day=0.004 * draw.uniform("disk growth"),
        indoors=0.15 + 0.6 * draw.uniform("indoors") ** 2,
        clock_error_s=np.where(draw.uniform("clock") < 0.03, 2.5, 0.02) * draw.normal("clock error"),
        drop_every_s=np.where(wired, np.inf, 3600.0 * 8.0 * np.exp(1.1 * draw.normal("drops"))),
        drop_for_s=60.0 * np.exp(1.0 + 0.8 * draw.normal("outages")),
        starts=np.where(shift, 5.0 + 2.0 * draw.uniform("starts"), np.nan),
        runs_h=12.0 + 4.0 * draw.uniform("runs"),
        uptime_days=5.0 + 40.0 * draw.uniform("uptime"),
        phase=draw.uniform("phase", 4),
    )


def _names(
    site: Indices, application: Indices, lines: Indices, draw: _Draw
) -> tuple[tuple[str, ...], tuple[dict[str, str], ...]]:
    asset_draw, north, east = draw.uniform("asset"), draw.normal("north"), draw.normal("east")
    counts: dict[tuple[int, str], int] = {}
    names, tags = [], []
    for i, (s, a) in enumerate(zip(site.tolist(), application.tolist(), strict=True)):
        place = SITES[s]
        asset = _pick(APPLICATIONS[a].assets, asset_draw[i])
        number = counts[s, asset] = counts.get((s, asset), 0) + 1
        names.append(f"{place.name} {asset} {number}")
        tags.append(
            {
                "lat": f"{place.latitude + 0.006 * north[i]:.5f}",
                "lon": f"{place.longitude + 0.009 * east[i]:.5f}",
                "country": place.country,
                "line": str(int(lines[i])),
                "asset": asset,
            }
        )
    return tuple(names), tuple(tags)


def _pick(options: Sequence[T], u: float) -> T:
    return options[min(int(u * len(options)), len(options) - 1)]


class _Draw:
    """A stream per trait. The first k values do not depend on how many follow."""

    def __init__(self, seed: int, n: int) -> None:
        self._seed = seed
        self._n = n

    def _rng(self, trait: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, 7, zlib.crc32(trait.encode())])

    def uniform(self, trait: str, width: int = 0) -> F64:
        return self._rng(trait).random((self._n, width) if width else self._n)

    def normal(self, trait: str, width: int = 0) -> F64:
        return self._rng(trait).standard_normal((self._n, width) if width else self._n)

    def choice(self, trait: str, shares: Sequence[float]) -> Indices:
        edges = np.cumsum(np.asarray(shares, dtype=np.float64))
        found: Indices = np.searchsorted(edges, self.uniform(trait) * edges[-1], side="right").astype(np.int64)
        return np.minimum(found, len(shares) - 1)
