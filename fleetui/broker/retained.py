"""The last word on each topic: kept messages, found by filter.

Topics lie in a sorted list beside the dictionary, so a filter looks only at those that begin like itself: ten
thousand devices that each ask for ``fleet/f/down/<id>/+`` cost ten thousand binary searches, not scans.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from fleetui.broker.message import Memory, Message


class Retained:
    """Messages by topic. ``bytes`` counts payloads; the broker's own, below ``$``, count nowhere."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._by_topic: dict[bytes, Message] = {}
        self._order: list[bytes] = []
        self.bytes = 0
        self._own = 0

    def __len__(self) -> int:
        return len(self._by_topic) - self._own

    def topics(self) -> list[bytes]:
        """All topics now; a copy, for who goes through them while they change."""
        return list(self._by_topic)

    def get(self, topic: bytes) -> Message | None:
        return self._by_topic.get(topic)

    def set(self, message: Message) -> None:
        topic = message.coded[2:]
        old = self._by_topic.get(topic)
        if old is None:
            insort(self._order, topic)
            self._own += topic.startswith(b"$")
        else:
            self._let_go(old)
        self._by_topic[topic] = message
        message.hold(self._memory)
        if not topic.startswith(b"$"):
            self.bytes += len(message.payload)

    def fill(self, messages: Iterable[Message]) -> None:
        """Into an empty store, many at once."""
        for message in messages:
            self._by_topic[message.coded[2:]] = message
            message.hold(self._memory)
            self.bytes += len(message.payload)
        self._order = sorted(self._by_topic)

    def remove(self, topic: bytes) -> bool:
        old = self._by_topic.pop(topic, None)
        if old is None:
            return False
        del self._order[bisect_left(self._order, topic)]
        self._own -= topic.startswith(b"$")
        self._let_go(old)
        return True

    def _let_go(self, message: Message) -> None:
        message.release(self._memory)
        if message.coded[2:3] != b"$":
            self.bytes -= len(message.payload)

    def count_below(self, prefix: bytes) -> int:
        """How many topics begin like this."""
        return bisect_left(self._order, prefix + b"\xff") - bisect_left(self._order, prefix)

    def matching(self, bare: str) -> Iterator[Message]:
        """What a filter matches, in the order of topics. ``$`` topics are not matched by a leading wildcard."""
        raw = bare.encode()
        cut = min((i for i in (raw.find(b"+"), raw.find(b"#")) if i >= 0), default=-1)
        if cut < 0:
            one = self._by_topic.get(raw)
            if one is not None:
                yield one
            return
        prefix = raw[:cut]
        levels = raw.split(b"/")
        if raw.endswith(b"/#") and cut == len(raw) - 1:
            parent = self._by_topic.get(raw[:-2])
            if parent is not None:
                yield parent
        start = bisect_left(self._order, prefix)
        # A copy of the range: delivering may change the store.
        end = bisect_left(self._order, prefix + b"\xff", start) if prefix else len(self._order)
        for topic in self._order[start:end]:
            if (prefix or not topic.startswith(b"$")) and _matches(levels, topic.split(b"/")):
                message = self._by_topic.get(topic)
                if message is not None:
                    yield message


def _matches(levels: list[bytes], topic: list[bytes]) -> bool:
    for i, level in enumerate(levels):
        if level == b"#":
            return True
        if i >= len(topic) or level not in {b"+", topic[i]}:
            return False
    return len(levels) == len(topic)
