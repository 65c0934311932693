"""Wishes of this desk: signed with the operator's own key, written to the store, followed to their end.

The operator of a single laptop is made at the first wish and nobody has to think about them. A wish that was
asked for before the desk was closed is followed on when it opens again. Main thread, but for the signing and
writing, which is an operation in the store's lane.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import Clock
from fleetui.desk.app.lazystore import ReadsAndWrites
from fleetui.desk.app.operations import Operation, Operations
from fleetui.desk.app.text import plural
from fleetui.store import wishes as stored
from fleetui.store.records import Changes, Wish, WishState

if TYPE_CHECKING:
    from fleetui.common.trust.wishes import Operator

OnEnd = Callable[[Wish], object]
ENDED = frozenset({WishState.DONE, WishState.FAILED, WishState.REFUSED, WishState.WITHDRAWN})


@dataclass(frozen=True, slots=True)
class Pending:
    """One that is under way."""

    id: str
    words: str  # “Rename edge-0042 to press 3”
    asked: float
    state: str
    on_end: OnEnd | None = None


class WishDesk:
    """``ask`` for something; ``take`` what the feed brings. ``on_failed`` hears of wishes that came to nothing."""

    def __init__(
        self,
        base: BaseDir,
        store: ReadsAndWrites,
        clock: Clock,
        operations: Operations,
        on_failed: Callable[[Wish, str], None] | None = None,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        """``on_written``: a wish is in the store; the feed may look at once."""
        self._base = base
        self._store = store
        self._clock = clock
        self._operations = operations
        self._on_failed = on_failed
        self._on_written = on_written
        self._operator: Operator | None = None
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._watchers: list[Callable[[], None]] = []

    def _identity(self) -> Operator:
        """Any thread; the first call may make the key."""
        with self._lock:
            if self._operator is None:
                from fleetui.station.operators import local_operator

                self._operator = local_operator(self._base)
            return self._operator

    @property
    def operator(self) -> str:
        """The operator's name. Cheap where they exist already: their public file says it."""
        if self._operator is None:
            try:
                _, _, name = (self._base.keys / "operator.pub").read_text("utf-8").rstrip("\n").split(" ", 2)
            except (OSError, ValueError):
                return self._identity().name
            return name
        return self._operator.name

    @property
    def pending(self) -> list[Pending]:
        """Oldest first."""
        return list(self._pending.values())

    def on_changed(self, watcher: Callable[[], None]) -> None:
        self._watchers.append(watcher)

    def ask(self, kind: str, arguments: Mapping[str, Any], words: str = "", *, on_end: OnEnd | None = None) -> str:
        """Signs and writes a wish; its id. ``on_end`` is called with it when it is done, failed or refused."""
        identity = uuid.uuid4().hex
        at = round(self._clock.now(), 3)
        said = words or describe(kind, arguments)
        self._pending[identity] = Pending(identity, said, at, "asked", on_end)
        self._tell()

        def work() -> bool:
            from fleetui.common.trust.wishes import sign_wish

            operator = self._identity()
            signature = sign_wish(operator, identity, kind, arguments, at)
            wish = Wish(identity, kind, arguments, operator.name, at, signature)
            return self._store.write(lambda connection: stored.ask(connection, wish))

        operation = Operation(said, work, initiator=self).in_store()
        operation.on_done(lambda _: self._written()).on_error(lambda error: self._not_written(identity, error))
        operation.start(self._operations)
        return identity

    def _written(self) -> None:
        if self._on_written is not None:
            self._on_written()

    def _not_written(self, identity: str, error: Exception) -> None:
        self._pending.pop(identity, None)
        self._tell()
        raise error  # to whoever hears of unhandled errors: the notification centre

    def withdraw(self, identity: str) -> None:
        """Takes it back, if no station has taken it yet; the feed says whether it was in time."""
        now = self._clock.now()
        Operation(
            "Take back a wish", lambda: self._store.write(lambda c: stored.withdraw(c, identity, now=now))
        ).in_store().on_done(lambda _: self._written()).start(self._operations)

    def take(self, changes: Changes) -> None:
        """What the feed brings: states of wishes, this desk's and others'."""
        changed = False
        for wish in changes.wishes:
            known = self._pending.get(wish.id)
            ended = wish.state in ENDED
            if known is None:
                if not ended and self._mine(wish):
                    words = describe(wish.kind, wish.arguments)
                    self._pending[wish.id] = Pending(wish.id, words, wish.at, str(wish.state))
                    changed = True
                continue
            changed = True
            if not ended:
                self._pending[wish.id] = Pending(known.id, known.words, known.asked, str(wish.state), known.on_end)
                continue
            del self._pending[wish.id]
            if known.on_end is not None:
                known.on_end(wish)
            if wish.state in {WishState.FAILED, WishState.REFUSED} and self._on_failed is not None:
                self._on_failed(wish, known.words)
        if changed:
            self._tell()

    def _mine(self, wish: Wish) -> bool:
        # Whoever never asked for anything has no key yet, and need not get one for looking.
        return (self._base.keys / "operator.pub").exists() and wish.operator == self.operator

    def _tell(self) -> None:
        for watcher in list(self._watchers):
            watcher()


_VERBS = {
    "device.rename": "Rename",
    "device.tag": "Tag",
    "device.note": "Write a note on",
    "device.accept": "Accept",
    "device.reject": "Reject",
    "device.reconsider": "Reconsider",
    "device.decommission": "Decommission",
    "device.remove": "Remove",
    "device.ask": "Ask",
}


def describe(kind: str, arguments: Mapping[str, Any]) -> str:
    """A wish in a few words."""
    verb = _VERBS.get(kind, kind.replace(".", " ").replace("_", " ").capitalize())
    devices = arguments.get("devices", arguments.get("device"))
    if isinstance(devices, list | tuple):
        devices = devices[0] if len(devices) == 1 else plural(len(devices), "device")
    return f"{verb} {devices}" if devices else verb
