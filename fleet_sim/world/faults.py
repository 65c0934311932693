"""What can go wrong with simulated devices, and what is going wrong now.

``KINDS`` is the list of faults with their parameters, from which scenarios and injected commands are checked and
``fleet-sim faults`` is printed. :class:`Faults` holds the active ones and says what they come to at a moment: as
:class:`~fleet_sim.world.conditions.Conditions`, and as the reboots that fall into a span. Pure: time is told, the
random source is the seed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleet_sim.world.applications import APPLICATIONS, FEATURES
from fleet_sim.world.conditions import Conditions
from fleetui.common.domain import ages
from fleetui.common.domain.errors import ConfigError

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

Value = float | int | str


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    unit: ages.Unit
    default: float
    low: float
    high: float
    help: str


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    takes_features: bool = False


_SECONDS, _SHARE, _NONE, _CELSIUS = ages.Unit.SECONDS, ages.Unit.SHARE, ages.Unit.NONE, ages.Unit.CELSIUS

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("offline", "The connection is gone; the device goes on working and queues its reports."),
        Kind(
            "flapping",
            "The connection comes and goes.",
            (
                Parameter("period", _SECONDS, 120.0, 2.0, 86400.0, "from one loss to the next"),
                Parameter("down", _SHARE, 0.4, 0.01, 0.99, "share of the period without connection"),
            ),
        ),
        Kind(
            "slow",
            "Inferences take longer.",
            (Parameter("factor", _NONE, 4.0, 0.1, 1000.0, "how many times as long"),),
        ),
        Kind(
            "errors",
            "Inferences fail.",
            (Parameter("failing", _SHARE, 0.2, 0.0, 1.0, "share of the rows that fail"),),
        ),
        Kind(
            "hot",
            "The device gets warmer over five minutes; above its limit it throttles.",
            (Parameter("degrees", _CELSIUS, 25.0, -40.0, 80.0, "by how much"),),
        ),
        Kind(
            "disk",
            "Something fills the disk.",
            (
                Parameter("until", _SHARE, 0.98, 0.0, 1.0, "how full it gets"),
                Parameter("within", _SECONDS, 3600.0, 0.0, 30 * 86400.0, "how long that takes"),
            ),
        ),
        Kind(
            "clock",
            "The device's clock jumps.",
            (Parameter("jump", _SECONDS, 3600.0, -10 * 365 * 86400.0, 10 * 365 * 86400.0, "by how much"),),
        ),
        Kind("stuck", "A sensor repeats one value.", takes_features=True),
        Kind(
            "reboot",
            "The device starts again and again.",
            (Parameter("period", _SECONDS, 90.0, 5.0, 86400.0, "from one start to the next"),),
        ),
        Kind(
            "drift",
            "Inputs move away from what the model has learnt.",
            (
                Parameter("sigma", _NONE, 0.5, -10.0, 10.0, "how far, in standard deviations"),
                Parameter("within", _SECONDS, 0.0, 0.0, 90 * 86400.0, "how long that takes; 0: at once"),
            ),
            takes_features=True,
        ),
    )
}
HEATING_S = 300.0


def check(kind: str, parameters: Mapping[str, object]) -> dict[str, Value]:
    """The parameters with their defaults, as numbers. Raises ``ConfigError`` in sentences."""
    known = KINDS.get(kind)
    if known is None:
        raise ConfigError(f"There is no fault {kind!r}", f"Choose one of {', '.join(KINDS)}")
    names = {p.name: p for p in known.parameters}
    checked: dict[str, Value] = {p.name: p.default for p in known.parameters}
    for name, given in parameters.items():
        if name == "features" and known.takes_features:
            checked[name] = _features_text(given)
            continue
        parameter = names.get(name)
        if parameter is None:
            takes = ", ".join([*names, *(["features"] if known.takes_features else [])]) or "none"
            raise ConfigError(f"The fault {kind!r} has no parameter {name!r}", f"Its parameters: {takes}")
        checked[name] = number(
            given, parameter.unit, f"{name} of the fault {kind!r}", parameter.low, parameter.high
        )
    return checked


def number(given: object, unit: ages.Unit, what: str, low: float, high: float) -> float:
    """A number as people write it, within limits. Raises ``ConfigError``."""
    try:
        if isinstance(given, int | float) and not isinstance(given, bool):
            value = float(given)
        elif unit is ages.Unit.SECONDS and str(given).startswith("-"):
            value = -ages.parse(str(given)[1:], unit)
        else:
            value = ages.parse(str(given), unit)
    except ValueError as error:
        raise ConfigError(
            f"{what[0].upper()}{what[1:]} cannot be {given!r}: {error}", f"Write it like {ages.example(unit)}"
        ) from None
    if not low <= value <= high:  # NaN, too
        between = f"{ages.show(low, unit)} to {ages.show(high, unit)}"
        raise ConfigError(f"{what[0].upper()}{what[1:]} cannot be {given}", f"It may be {between}")
    return value


def _features_text(given: object) -> str:
    names = [str(name) for name in given] if isinstance(given, list | tuple) else str(given).split(",")
    names = [name.strip() for name in names if name.strip()]
    known = {feature for application in APPLICATIONS for feature in application.features}
    for name in names:
        if name not in known and not (name.isdigit() and int(name) < FEATURES):
            raise ConfigError(
                f"There is no feature {name!r}",
                f"Name one of {', '.join(sorted(known))}, or a number from 0 to {FEATURES - 1}",
            )
    return ",".join(names)


@dataclass(slots=True, eq=False)
class Active:
    """One fault that is going on."""

    ident: str
    kind: str
    devices: I64
    parameters: dict[str, Value]
    since: float
    until: float = math.inf
    phases: F64 = field(default_factory=lambda: np.zeros(0))
    features: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, FEATURES), np.bool_))

    def get(self, name: str) -> float:
        return float(self.parameters[name])


class Faults:
    """What is going wrong now. ``applications`` says what each device is used for, to find features by name."""

    def __init__(self, applications: I64) -> None:
        self._applications = applications
        self._n = len(applications)
        self._active: dict[str, Active] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._active)

    @property
    def active(self) -> list[Active]:
        return list(self._active.values())

    @property
    def restless(self) -> bool:
        """Whether what the active ones come to changes with time alone."""
        return any(a.kind in {"flapping", "reboot", "hot", "disk", "drift"} for a in self._active.values())

    # ------------------------------------------------------------ beginning and ending

    def begin(
        self,
        kind: str,
        devices: I64,
        now: float,
        *,
        parameters: Mapping[str, object] | None = None,
        lasts_s: float = math.inf,
        ident: str = "",
    ) -> Active:
        """Let a fault begin. Raises ``ConfigError`` for what it cannot be. The same id replaces."""
        checked = check(kind, parameters or {})
        self._count += 1
        ident = ident or f"{kind}-{self._count}"
        # Devices do not flap or reboot in step; the order of the ids decides nothing.
        draws = np.random.default_rng([zlib.crc32(kind.encode()), int(now) & 0xFFFFFFFF])
        phases = draws.random(self._n)[devices]
        active = Active(ident, kind, devices, checked, now, now + lasts_s, phases)
        if KINDS[kind].takes_features:
            active.features = self._mask(str(checked.get("features", "")), devices)
        self._active[ident] = active
        return active

    def _mask(self, names: str, devices: I64) -> npt.NDArray[np.bool_]:
        """(devices, features): which features the text means on each device; none named: one, the first."""
        mask = np.zeros((len(devices), FEATURES), np.bool_)
        applications = self._applications[devices]
        for name in names.split(",") if names else ["0"]:
            for app, application in enumerate(APPLICATIONS):
                if name.isdigit():
                    mask[applications == app, int(name)] = True
                elif name in application.features:
                    mask[applications == app, application.features.index(name)] = True
        return mask

    def end(self, ident: str | None = None) -> list[Active]:
        """End one, or all."""
        if ident is None:
            ended = list(self._active.values())
            self._active.clear()
            return ended
        one = self._active.pop(ident, None)
        return [one] if one is not None else []

    def expire(self, now: float) -> list[Active]:
        """End those whose time is over."""
        return [self._active.pop(a.ident) for a in list(self._active.values()) if now >= a.until]

    def next_end(self) -> float:
        return min((a.until for a in self._active.values()), default=math.inf)

    # ------------------------------------------------------------ what they come to

    def conditions(self, now: float) -> Conditions:
        """The sum of all active faults at ``now``."""
        c = Conditions.none(self._n)
        for a in self._active.values():
            _APPLY[a.kind](c, a, now)
        return c

    def reboots(self, after: float, now: float) -> I64:
        """Devices whose next start of a reboot loop falls into (after, now], each once."""
        due = np.zeros(self._n, np.bool_)
        for a in self._active.values():
            if a.kind == "reboot":
                period = a.get("period")
                turns = np.floor((now - a.since) / period - a.phases) > np.floor(
                    (after - a.since) / period - a.phases
                )
                due[a.devices[turns]] = True
        return np.flatnonzero(due)


# ---------------------------------------------------------------- one function a kind


def _offline(c: Conditions, a: Active, _now: float) -> None:
    c.link_down[a.devices] = True


def _flapping(c: Conditions, a: Active, now: float) -> None:
    place = ((now - a.since) / a.get("period") + a.phases) % 1.0
    c.link_down[a.devices] |= place < a.get("down")


def _slow(c: Conditions, a: Active, _now: float) -> None:
    c.slower[a.devices] *= a.get("factor")


def _errors(c: Conditions, a: Active, _now: float) -> None:
    c.failing[a.devices] = 1.0 - (1.0 - c.failing[a.devices]) * (1.0 - a.get("failing"))


def _hot(c: Conditions, a: Active, now: float) -> None:
    c.hotter[a.devices] += a.get("degrees") * min(1.0, (now - a.since) / HEATING_S)


def _disk(c: Conditions, a: Active, now: float) -> None:
    within = a.get("within")
    share = a.get("until") * (min(1.0, (now - a.since) / within) if within > 0 else 1.0)
    c.disk[a.devices] = np.maximum(c.disk[a.devices], share)


def _clock(c: Conditions, a: Active, _now: float) -> None:
    c.clock_s[a.devices] += a.get("jump")


def _stuck(c: Conditions, a: Active, _now: float) -> None:
    c.stuck[a.devices] |= a.features


def _reboot(_c: Conditions, _a: Active, _now: float) -> None:
    """Comes as single starts: see :meth:`Faults.reboots`."""


def _drift(c: Conditions, a: Active, now: float) -> None:
    within = a.get("within")
    sigma = a.get("sigma") * (min(1.0, (now - a.since) / within) if within > 0 else 1.0)
    c.shift[a.devices] += (a.features * sigma).astype(np.float32)


_APPLY = {
    "offline": _offline,
    "flapping": _flapping,
    "slow": _slow,
    "errors": _errors,
    "hot": _hot,
    "disk": _disk,
    "clock": _clock,
    "stuck": _stuck,
    "reboot": _reboot,
    "drift": _drift,
}
