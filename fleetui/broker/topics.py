"""Who subscribed to what: an index of filters, shared groups, and cached routes from topics to sessions.

Filters without a wildcard lie in a dictionary, the others in a trie. What a topic matches is worked out once
and kept as a :class:`Route`; a change of subscriptions forgets only the routes that begin with the same three
levels as the filter does (all of them, where the filter has a wildcard before that). So 10,000 devices that
connect one after the other, each subscribing below ``fleet/f/down/<id>``, do not disturb the routes below
``fleet/f/up``.

Knows sessions only as hashable things with an ``online`` property.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from fleetui.broker.wire import PacketError, Reason

MAX_LEVELS: Final = 32
MAX_LENGTH: Final = 1024
SHARE: Final = "$share/"


class Subscriber(Protocol):
    """What the index wants to know of a session."""

    @property
    def online(self) -> bool: ...


S = TypeVar("S", bound=Subscriber)


def check_filter(text: str, max_length: int = MAX_LENGTH, max_levels: int = MAX_LEVELS) -> tuple[str | None, str]:
    """(share group or None, filter). Raises for what the protocol or the limits do not allow."""
    group: str | None = None
    bare = text
    if text.startswith(SHARE):
        group, slash, bare = text[len(SHARE) :].partition("/")
        if not slash or not group or "+" in group or "#" in group:
            raise PacketError(Reason.BAD_TOPIC_FILTER, text[:100])
    if not bare or len(text) > max_length or bare.count("/") >= max_levels:
        raise PacketError(Reason.BAD_TOPIC_FILTER, text[:100])
    if "#" in bare or "+" in bare:
        levels = bare.split("/")
        for i, level in enumerate(levels):
            if ("#" in level and (level != "#" or i != len(levels) - 1)) or ("+" in level and level != "+"):
                raise PacketError(Reason.BAD_TOPIC_FILTER, text[:100])
    return group, bare


def check_topic(raw: bytes, max_length: int = MAX_LENGTH, max_levels: int = MAX_LEVELS) -> str:
    """The text of a topic to publish to."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise PacketError(Reason.MALFORMED, "a topic that is not UTF-8") from None
    if not text or "+" in text or "#" in text or "\0" in text:
        raise PacketError(Reason.BAD_TOPIC, repr(text[:100]))
    if len(raw) > max_length or text.count("/") >= max_levels:
        raise PacketError(Reason.BAD_TOPIC, "a topic longer or deeper than allowed")
    return text


def is_plain(text: str) -> bool:
    return "+" not in text and "#" not in text


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a session asked for with one filter."""

    text: str  # as the client wrote it
    bare: str  # without $share/<group>/
    group: str | None
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    identifier: int | None = None


class Group(Generic[S]):
    """A shared subscription: each message goes to one member, in turn; connected ones first."""

    __slots__ = ("_turn", "bare", "members", "name")

    def __init__(self, name: str, bare: str) -> None:
        self.name = name
        self.bare = bare
        self.members: dict[S, Subscription] = {}
        self._turn = 0

    def pick(self, besides: S | None = None) -> tuple[S, Subscription] | None:
        members = [m for m in self.members.items() if m[0] is not besides]
        if not members:
            return None
        members = [m for m in members if m[0].online] or members
        self._turn += 1
        return members[self._turn % len(members)]


Entry = tuple[S, Subscription]
Bag = dict[object, "Entry[S] | Group[S]"]


class _Node(Generic[S]):
    """One level of the trie. ``here``: filters that end here; ``below``: those that end in ``#`` here."""

    __slots__ = ("below", "here", "kids", "plus")

    def __init__(self) -> None:
        self.kids: dict[str, _Node[S]] | None = None
        self.plus: _Node[S] | None = None
        self.here: Bag[S] | None = None
        self.below: Bag[S] | None = None

    def kid(self, level: str) -> _Node[S] | None:
        if level == "+":
            return self.plus
        return self.kids.get(level) if self.kids is not None else None

    @property
    def empty(self) -> bool:
        return not (self.kids or self.plus or self.here or self.below)


# One delivery: session, QoS granted, no local, retain as published, subscription identifiers.
Target = tuple[S, int, bool, bool, tuple[int, ...]]


class Route(Generic[S]):
    """Where a topic's messages go. ``coded``: the topic as it stands in a packet."""

    __slots__ = ("coded", "shared", "targets")

    def __init__(self, coded: bytes, targets: tuple[Target[S], ...], shared: tuple[Group[S], ...]) -> None:
        self.coded = coded
        self.targets = targets
        self.shared = shared


class Index(Generic[S]):
    """All subscriptions of all sessions."""

    def __init__(
        self, max_routes: int = 65_536, max_length: int = MAX_LENGTH, max_levels: int = MAX_LEVELS
    ) -> None:
        self.routes: dict[bytes, Route[S]] = {}  # by coded topic; looked up by the hot path itself
        self.count = 0
        self._by_prefix: dict[str, list[bytes]] = {}
        self._same: dict[object, tuple[Target[S], ...]] = {}
        self._max_routes = max_routes
        self._max_length = max_length
        self._max_levels = max_levels
        self._exact: dict[str, Bag[S]] = {}
        self._root: _Node[S] = _Node()
        self._groups: dict[tuple[str, str], Group[S]] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing is left of all that was subscribed."""
        return self._root.empty and not self._exact and not self._groups

    # ------------------------------------------------------------ changing

    def add(self, session: S, subscription: Subscription) -> None:
        """Also replaces the session's earlier subscription with the same filter."""
        bag = self._bag(subscription.bare, make=True)
        assert bag is not None
        if subscription.group is None:
            if session not in bag:
                self.count += 1
            bag[session] = (session, subscription)
        else:
            key = (subscription.group, subscription.bare)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = Group(*key)
            if session not in group.members:
                self.count += 1
            group.members[session] = subscription
            bag[key] = group
        self._forget(subscription.bare)

    def remove(self, session: S, subscription: Subscription) -> None:
        bag = self._bag(subscription.bare, make=False)
        if bag is None:
            return
        if subscription.group is None:
            if bag.pop(session, None) is not None:
                self.count -= 1
        else:
            key = (subscription.group, subscription.bare)
            group = self._groups.get(key)
            if group is not None:
                if group.members.pop(session, None) is not None:
                    self.count -= 1
                if not group.members:
                    del self._groups[key]
                    bag.pop(key, None)
        if not bag:
            self._prune(subscription.bare)
        self._forget(subscription.bare)

    def group(self, name: str, bare: str) -> Group[S] | None:
        return self._groups.get((name, bare))

    def _bag(self, bare: str, *, make: bool) -> Bag[S] | None:
        if is_plain(bare):
            found = self._exact.get(bare)
            if found is None and make:
                found = self._exact[bare] = {}
            return found
        node = self._root
        levels = bare.split("/")
        deep = levels[-1] == "#"
        for level in levels[:-1] if deep else levels:
            kid = node.kid(level)
            if kid is None:
                if not make:
                    return None
                kid = _Node()
                if level == "+":
                    node.plus = kid
                elif node.kids is None:
                    node.kids = {level: kid}
                else:
                    node.kids[level] = kid
            node = kid
        if deep:
            if node.below is None and make:
                node.below = {}
            return node.below
        if node.here is None and make:
            node.here = {}
        return node.here

    def _prune(self, bare: str) -> None:
        """Remove what an emptied bag leaves behind."""
        if is_plain(bare):
            self._exact.pop(bare, None)
            return
        levels = bare.split("/")
        path: list[tuple[_Node[S], str]] = []
        node = self._root
        for level in levels[:-1] if levels[-1] == "#" else levels:
            kid = node.kid(level)
            if kid is None:
                return
            path.append((node, level))
            node = kid
        if levels[-1] == "#":
            node.below = None
        else:
            node.here = None
        for parent, level in reversed(path):
            if not node.empty:
                return
            if level == "+":
                parent.plus = None
            elif parent.kids is not None:
                del parent.kids[level]
                if not parent.kids:
                    parent.kids = None
            node = parent

    # ------------------------------------------------------------ routes

    def _forget(self, bare: str) -> None:
        self._same.clear()
        prefix = _prefix(bare)
        if prefix is None:
            self.routes.clear()
            self._by_prefix.clear()
            return
        for coded in self._by_prefix.pop(prefix, ()):
            self.routes.pop(coded, None)

    def route(self, coded: bytes) -> Route[S]:
        """The route of a topic, worked out and kept. Raises for a topic that is none."""
        found = self.routes.get(coded)
        if found is not None:
            return found
        topic = check_topic(coded[2:], self._max_length, self._max_levels)
        targets, shared = self.match(topic)
        if len(self.routes) >= self._max_routes:
            self.routes.clear()
            self._by_prefix.clear()
        # Thousands of topics go to the same station: they share one tuple.
        same = self._same.setdefault(targets, targets)
        found = self.routes[coded] = Route(coded, same, shared)
        prefix = "/".join(topic.split("/", 3)[:3])
        self._by_prefix.setdefault(prefix, []).append(coded)
        return found

    def match(self, topic: str) -> tuple[tuple[Target[S], ...], tuple[Group[S], ...]]:
        entries: dict[S, list[Subscription]] = {}
        groups: list[Group[S]] = []
        for item in self._matching(topic):
            if isinstance(item, Group):
                groups.append(item)
            else:
                entries.setdefault(item[0], []).append(item[1])
        return tuple(_target(session, asked) for session, asked in entries.items()), tuple(groups)

    def _matching(self, topic: str) -> Iterator[Entry[S] | Group[S]]:
        exact = self._exact.get(topic)
        if exact:
            yield from exact.values()
        levels = topic.split("/")
        last = len(levels)
        stack = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            hidden = depth == 0 and topic.startswith("$")  # a leading wildcard does not match $-topics
            if node.below and not hidden:
                yield from node.below.values()
            if depth == last:
                if node.here:
                    yield from node.here.values()
                continue
            if node.kids is not None:
                kid = node.kids.get(levels[depth])
                if kid is not None:
                    stack.append((kid, depth + 1))
            if node.plus is not None and not hidden:
                stack.append((node.plus, depth + 1))


def _prefix(bare: str) -> str | None:
    """The first three levels of a filter; None if a wildcard stands among them or it has fewer.

    ``a/b/#`` matches ``a/b`` itself, so a filter needs its three levels before the ``#``.
    """
    levels = bare.split("/", 3)
    if len(levels) < 3 or "+" in levels[:3] or "#" in levels[:3]:
        return bare if len(levels) < 3 and is_plain(bare) else None
    return "/".join(levels[:3])


def _target(session: S, asked: list[Subscription]) -> Target[S]:
    """Overlapping filters of one session are one delivery: highest QoS, all identifiers."""
    if len(asked) == 1:
        one = asked[0]
        ids = () if one.identifier is None else (one.identifier,)
        return session, one.qos, one.no_local, one.retain_as_published, ids
    return (
        session,
        max(one.qos for one in asked),
        all(one.no_local for one in asked),
        any(one.retain_as_published for one in asked),
        tuple(one.identifier for one in asked if one.identifier is not None),
    )
