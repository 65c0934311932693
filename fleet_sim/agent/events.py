"""What goes into an agent core and what comes out of it: frozen values, no behaviour.

Events say what happened to the device, effects what its shell has to do, in their order. A ``Persist`` always
stands before the ``Publish`` that relies on it: a power cut between the two costs a repetition, never a report.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleetui.common.link.messages import UpMessage

NAN = float("nan")
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the device is: shares 0..1, °C, seconds; NaN where it cannot tell."""

    cpu: float = NAN
    memory: float = NAN
    disk: float = NAN
    temperature: float = NAN
    clock_offset_s: float = NAN
    uptime_s: float = NAN


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Started:
    """The device is up. ``reason`` is a word for why it had been down; ``level`` that of the event about it."""

    reason: str = "power-on"
    level: int = 1


@dataclass(frozen=True, slots=True)
class Connected:
    pass


@dataclass(frozen=True, slots=True)
class Disconnected:
    pass


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. ``vitals`` are needed when a beat is due (``core.beat_at``), and welcome at any time."""

    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class Inferred:
    """A batch came out of a model: seconds per answered row, its class per answered row, how many rows failed."""

    handle: str
    latencies: npt.NDArray[np.float64]
    errors: int = 0
    outputs: npt.NDArray[np.int64] | None = None
    error: str = ""  # the last failure, in words


@dataclass(frozen=True, slots=True)
class Counted:
    """The same, counted already: who counts for thousands of devices at once does it in one go."""

    handle: str
    rows: int
    errors: int
    latency: Counts  # all bins of common.sketches.latency
    outputs: Counts | None = None  # answered rows per class
    error: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has taken the report that was published with this token."""

    token: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The transport did not take the report, or let go of it: it has to be published again."""

    token: int


@dataclass(frozen=True, slots=True)
class Happened:
    """Something worth an event report."""

    kind: str
    level: int = 1
    codes: tuple[str, ...] = ()
    text: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Stopping:
    """Shut down in order. A second one: without waiting for what is still to be sent."""


AgentEvent = (
    Started
    | Connected
    | Disconnected
    | Tick
    | Inferred
    | Counted
    | Received
    | Acknowledged
    | Refused
    | Happened
    | Stopping
)


# ---------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Publish:
    """QoS 1 has a token, to be given back with ``Acknowledged`` or ``Refused``; QoS 0 has none."""

    topic: str
    message: UpMessage
    qos: int
    token: int | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    pattern: str


@dataclass(frozen=True, slots=True)
class Persist:
    """One change of the queue on disk, all of it or nothing: entries written (again), entries gone."""

    puts: tuple[tuple[int, str, bytes], ...] = ()  # (id, kind, encoded report)
    deletes: tuple[int, ...] = ()
    losses: dict[str, int] = field(default_factory=dict)  # counted so far and not reported yet


@dataclass(frozen=True, slots=True)
class Log:
    level: int  # of the logging module
    text: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Nothing is left to do: say goodbye to the broker."""


Effect = Publish | Subscribe | Persist | Log | Disconnect
