"""What is counted, and its publication under ``$SYS/broker/``.

Counts only rise; what is a state (connected clients, retained messages, memory) is read when it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


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
    journal_commits: int = 0
    journal_errors: int = 0

    def as_dict(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
