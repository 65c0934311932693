"""Where wishes are carried out: taken from the store, checked, done, and ended with a sentence.

Nothing is believed of a row but its signature: who can write to the database can ask for nothing. A wish that was
taken and not ended, because a station was killed with it in hand, is taken again by the next leader.

Changes are made on the ingest thread, between two batches: the books and the store change together, and nothing
that arrived before is written over them. Questions go out over the link and are over with the last answer, or with
time.

Runs on the control thread, in bounded slices; :meth:`Office.answered` may be called from the ingest thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from sqlalchemy import Connection

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import StoreError
from fleetui.common.link.messages import Reply
from fleetui.station.ingest.batcher import FencedError
from fleetui.station.wishes.kinds import Change, FailedError, Plan, Question, RefusedError, plan
from fleetui.store import devices, events, wishes
from fleetui.store.records import EventRow, Wish, WishState
from fleetui.store.store import Store

log = logging.getLogger("fleetui.station")

TOO_OLD_S = 7 * 86_400.0
TOO_NEW_S = 3_600.0
RETRY_S = 1.0

Check = Callable[[Wish], str | None]
Transact = Callable[[Callable[[Connection], str], Change], "Future[str]"]
Send = Callable[[str, str, str, "dict[str, str]", float], bool]


@dataclass(slots=True)
class _Asked:
    """A question that waits for answers."""

    wish: Wish
    deadline: float
    waiting: set[str]
    said: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)


class Office:
    """See the module's text."""

    def __init__(
        self,
        store: Store,
        holder: str,
        clock: Clock,
        check: Check,
        transact: Transact,
        send: Send,
        *,
        ask_timeout_s: float,
    ) -> None:
        """``check`` tells why a wish is refused; ``transact`` has a change made on the ingest thread.

        ``send(device, ask id, kind, arguments, seconds)`` puts a question on the link.
        """
        self._store = store
        self._holder = holder
        self._clock = clock
        self._check = check
        self._transact = transact
        self._send = send
        self._ask_timeout_s = ask_timeout_s
        self._under_way: tuple[Wish, Change, Future[str]] | None = None
        self._again: list[tuple[Wish, Plan]] = []  # the store did not take them yet
        self._again_at = 0.0
        self._asked: dict[str, _Asked] = {}
        self._answers: deque[Reply] = deque()
        self._unended: list[tuple[Wish, WishState, str]] = []  # the store did not take their end yet

    def answered(self, reply: Reply) -> None:
        """From the ingest thread: a device has answered."""
        self._answers.append(reply)

    def step(self, most: int = 20) -> None:
        """Go on with what is under way, and take up to ``most`` wishes more."""
        self._hear()
        if self._unended and self._clock.monotonic() >= self._again_at:
            unended, self._unended = self._unended, []
            for wish, state, outcome in unended:
                self._end(wish, state, outcome)
        for _ in range(most):
            if not self._finish_change():
                return
            if self._again and self._clock.monotonic() >= self._again_at:
                self._act(*self._again.pop(0))
                continue
            taken = self._take()
            if taken is None:
                return
            self._carry_out(taken)

    # ------------------------------------------------------------ one wish

    def _take(self) -> Wish | None:
        try:
            # A look costs a snapshot, taking costs a transaction: most of the time there is nothing.
            with self._store.read() as connection:
                if not wishes.recent(connection, limit=1, only_open=True):
                    return None
            return self._store.write(lambda c: wishes.take(c, self._holder, self._clock.now()))
        except StoreError as error:
            log.debug("wishes cannot be looked at: %s", error)
            return None

    def _carry_out(self, wish: Wish) -> None:
        refusal = self._refusal(wish)
        if refusal is not None:
            self._end(wish, WishState.REFUSED, refusal, suspicious=True)
            return
        try:
            made = plan(wish.kind, wish.arguments)
        except RefusedError as error:
            self._end(wish, WishState.REFUSED, str(error))
            return
        self._act(wish, made)

    def _refusal(self, wish: Wish) -> str | None:
        why = self._check(wish)
        if why is not None:
            return why
        age = self._clock.now() - wish.at
        # The signature holds the time: an old row put back cannot be carried out again.
        if age > TOO_OLD_S:
            return "It was asked more than a week ago; ask again"
        if age < -TOO_NEW_S:
            return "It was asked in the future; check the clock of the machine it was asked on"
        return None

    def _act(self, wish: Wish, made: Plan) -> None:
        if isinstance(made, Change):
            self._begin(wish, made)
        else:
            self._ask(wish, made)

    # ------------------------------------------------------------ changes

    def _begin(self, wish: Wish, change: Change) -> None:
        def work(connection: Connection) -> str:
            outcome = change.store(connection)
            if wishes.finish(
                connection, wish.id, WishState.DONE, outcome, now=self._clock.now(), holder=self._holder
            ):
                self._record(connection, wish, "wish.done", 1, outcome, change.about)
            return outcome

        self._under_way = (wish, change, self._transact(work, change))

    def _finish_change(self) -> bool:
        """Whether there is room for another one."""
        if self._under_way is None:
            return True
        wish, change, future = self._under_way
        if not future.done():
            return False
        self._under_way = None
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(error, FencedError):
            return False  # the next leader takes it over
        if isinstance(error, StoreError):
            self._later(wish, change)
        elif isinstance(error, FailedError):
            self._end(wish, WishState.FAILED, str(error))
        elif error is not None:
            log.error("a wish of the kind %s failed", wish.kind, exc_info=error)
            self._end(
                wish, WishState.FAILED, f"It failed through an error of this program ({type(error).__name__})"
            )
        return True

    def _later(self, wish: Wish, made: Plan) -> None:
        self._again.append((wish, made))
        self._again_at = self._clock.monotonic() + RETRY_S

    # ------------------------------------------------------------ questions

    def _ask(self, wish: Wish, question: Question) -> None:
        try:
            with self._store.read() as connection:
                known = devices.numbers(connection, question.devices)
        except StoreError as error:
            log.info("a question waits for the store: %s", error)
            self._later(wish, question)
            return
        unknown = [name for name in question.devices if name not in known]
        if unknown:
            self._end(wish, WishState.FAILED, f"There is no device {unknown[0]}")
            return
        seconds = self._ask_timeout_s
        sent = [
            name
            for name in question.devices
            if self._send(name, wish.id, question.ask, dict(question.arguments), seconds)
        ]
        if not sent:
            self._end(wish, WishState.FAILED, "The link has no room for a question now; ask again")
            return
        self._asked[wish.id] = _Asked(wish, self._clock.monotonic() + seconds, set(question.devices))

    def _hear(self) -> None:
        while self._answers:
            reply = self._answers.popleft()
            asked = self._asked.get(reply.ask)
            if asked is None or reply.device not in asked.waiting:
                continue
            asked.waiting.discard(reply.device)
            asked.said[reply.device] = reply.text
            if not reply.ok:
                asked.refused.add(reply.device)
        now = self._clock.monotonic()
        for asked in [a for a in self._asked.values() if not a.waiting or a.deadline <= now]:
            state, outcome = _summary(asked)
            self._end(asked.wish, state, outcome)
            del self._asked[asked.wish.id]

    # ------------------------------------------------------------ the end of a wish

    def _end(self, wish: Wish, state: WishState, outcome: str, *, suspicious: bool = False) -> None:
        def work(connection: Connection) -> None:
            now = self._clock.now()
            if wishes.finish(connection, wish.id, state, outcome, now=now, holder=self._holder):
                level = 3 if suspicious else 1 if state is WishState.DONE else 2
                self._record(connection, wish, f"wish.{state.value}", level, outcome, "")

        try:
            self._store.write(work)
        except StoreError as error:
            log.info("the end of a wish is not written yet: %s", error)
            self._unended.append((wish, state, outcome))
            self._again_at = self._clock.monotonic() + RETRY_S

    def _record(self, connection: Connection, wish: Wish, kind: str, level: int, outcome: str, about: str) -> None:
        """An event: who asked for what, and what came of it. Under the wish's id, so it is entered once."""
        whose = wish.operator[:64] or "nobody"
        text = f"{whose} asked for {wish.kind[:64]}: {outcome}"
        known = bool(about) and about in devices.numbers(connection, [about])
        row = EventRow(
            self._clock.now(),
            kind,
            level,
            text,
            about if known else "",
            subject=wish.id,
            boot=f"wish:{wish.id}",
            source="operator" if level < 3 else "station",
        )
        events.add(connection, row)


def _summary(asked: _Asked) -> tuple[WishState, str]:
    count = len(asked.said) + len(asked.waiting)
    good = len(asked.said) - len(asked.refused)
    if count == 1:
        if asked.waiting:
            return WishState.FAILED, f"{min(asked.waiting)} did not answer in time"
        device, text = next(iter(asked.said.items()))
        words = f": {text}" if text else ""
        if asked.refused:
            return WishState.FAILED, f"{device} refused{words}"
        return WishState.DONE, f"{device} answered{words}"
    outcome = f"{good} of {count} devices answered"
    if asked.refused:
        outcome += f", {len(asked.refused)} refused"
    if asked.waiting:
        some = ", ".join(sorted(asked.waiting)[:3])
        outcome += (
            f", {len(asked.waiting)} did not answer in time ({some}{', …' if len(asked.waiting) > 3 else ''})"
        )
    return (WishState.DONE if good else WishState.FAILED), outcome
