"""What the broker says of itself on ``$SYS``: above all, how many messages it had to drop.

A broker whose queue for the station is full acknowledges to a device and then throws away; only this counter tells.
Names differ a little between brokers; what is not known is left alone, what is not a number too. The link's thread
calls :meth:`BrokerWatch.take`, the control thread reads.
"""

from __future__ import annotations

import math
import re

PATTERN = "$SYS/broker/#"
PREFIX = "$SYS/broker/"

# Our name -> names that brokers use, the first known one counts.
FIGURES: dict[str, tuple[str, ...]] = {
    "clients": ("clients/connected", "clients/active"),
    "dropped": ("publish/messages/dropped", "messages/publish/dropped"),
    "messages_in": ("publish/messages/received", "messages/publish/received", "messages/received"),
    "messages_out": ("publish/messages/sent", "messages/publish/sent", "messages/sent"),
    "bytes_in": ("bytes/received",),
    "bytes_out": ("bytes/sent",),
    "retained": ("retained messages/count",),
    "stored": ("store/messages/count", "messages/stored"),
    "subscriptions": ("subscriptions/count",),
    "uptime_s": ("uptime",),
}
_KNOWN = {name: (figure, rank) for figure, names in FIGURES.items() for rank, name in enumerate(names)}
_NUMBER = re.compile(rb"\s*(-?\d{1,18}(?:\.\d{1,18})?)(?:\s+seconds)?\s*")


class BrokerWatch:
    """The latest figures, and how many messages were dropped since the last look."""

    def __init__(self) -> None:
        self._figures: dict[str, tuple[int, float]] = {}  # figure -> rank of the name it came by, value
        self._dropped_seen: float | None = None
        self.version = ""

    def take(self, topic: str, payload: bytes) -> bool:
        """Whether ``topic`` was the broker's own; whatever is in it, it never raises."""
        if not topic.startswith("$SYS/"):
            return False
        name = topic.removeprefix(PREFIX)
        if name == "version":
            text = payload[:80].decode("utf-8", "replace")
            self.version = "".join(c for c in text if c.isprintable())
            return True
        known = _KNOWN.get(name)
        match = _NUMBER.fullmatch(payload) if known and len(payload) <= 64 else None
        if known is None or match is None:
            return True
        figure, rank = known
        value = float(match[1])
        if math.isfinite(value) and self._figures.get(figure, (rank, 0.0))[0] >= rank:
            self._figures[figure] = (rank, value)
        return True

    def figures(self) -> dict[str, float]:
        """``broker.<figure>`` for what is known."""
        return {f"broker.{name}": value for name, (_, value) in dict(self._figures).items()}

    def newly_dropped(self) -> int:
        """How many messages the broker threw away since the last look.

        What it had dropped before this station came is not this station's news; a broker that was restarted
        counts from zero again.
        """
        now = self._figures.get("dropped", (0, math.nan))[1]
        if math.isnan(now):
            return 0
        last, self._dropped_seen = self._dropped_seen, now
        if last is None:
            return 0
        return int(now - last) if now >= last else int(now)
