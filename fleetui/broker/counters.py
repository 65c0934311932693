"""What is counted, and its publication under ``$SYS/broker/``.

Counts only rise; what is a state (connected clients, retained messages, memory) is read when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from fleetui import __version__
from fleetui.broker.access import SYS

if TYPE_CHECKING:
    from fleetui.broker.core import Core


@dataclass(slots=True)
class Counters:
    """Since the broker started."""

    connects: int = 0  # sockets accepted
    refused: int = 0  # CONNECTs answered with no
    taken_over: int = 0
    kicked: int = 0
    timed_out: int = 0  # keep-alive or no CONNECT in time
    malformed: int = 0  # connections ended for breaking the protocol
    bugs: int = 0  # connections ended by an error of ours; should stay 0
    handshakes_failed: int = 0
    connections_refused: int = 0  # too many, in total or of one address

    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0  # PUBLISH from clients
    messages_out: int = 0  # PUBLISH to clients, repetitions included
    dropped: int = 0  # not kept for a subscriber: its queue or the memory was full
    dropped_unsent: int = 0  # QoS 0 for a connected client that was too slow
    expired: int = 0
    too_large: int = 0  # not sent: larger than the client takes
    denied_publish: int = 0
    denied_subscribe: int = 0
    denied_retained: int = 0  # not retained: too many or too much
    throttled: int = 0  # times a client was read more slowly for publishing too fast
    sessions_ended: int = 0
    journal_errors: int = 0

    def as_dict(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def memory_used() -> int:
    """Bytes of physical memory this process takes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123 - one read, ten times a minute
            return int(file.read().split()[1]) * 4096
    except (OSError, ValueError, IndexError):
        return 0


def snapshot(core: Core) -> dict[str, Any]:
    """Everything that ``$SYS/broker/`` shows: topic below it -> value."""
    state = core.state
    journal = state.journal
    online = sum(1 for session in core.sessions.values() if session.online)
    waiting = sum(session.waiting for session in core.sessions.values())
    values: dict[str, Any] = {
        "version": __version__,
        "uptime": int(core.loop.time() - core.started),
        "clients/connected": online,
        "clients/sessions": len(core.sessions),
        "subscriptions": core.index.count,
        "queued": waiting,
        "retained/count": len(core.retained),
        "retained/bytes": core.retained.bytes,
        "memory/held": core.memory.held,
        "memory/peak": core.memory.peak,
        "memory/process": memory_used(),
        "journal/bytes": 0 if journal is None else journal.size + journal.snapshot_size,
        "journal/damaged": 0 if journal is None else journal.damaged,
        "journal/stalled": int(core.stalled),
    }
    if core.revocations_until is not None:
        values["revocations/good-for"] = int(core.revocations_until - core.unix)
    values |= {f"count/{name}": value for name, value in core.counters.as_dict().items()}
    return values


class SysTopics:
    """Publishes the snapshot, retained, each value when it has changed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._last: dict[str, Any] = {}

    def publish(self) -> None:
        for name, value in snapshot(self._core).items():
            if self._last.get(name) != value:
                self._last[name] = value
                self._core.announce(f"{SYS}broker/{name}", str(value).encode(), retain=True)
