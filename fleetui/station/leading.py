"""What exists only while this station leads: the link, the ingest thread, the books, the office for wishes.

Made when the lease is taken, from what the store knows then; thrown away when it is lost. Nothing is carried over,
so what another station wrote in between cannot be overlooked. The broker's session stays: it belongs to the client
id, and whoever leads next under the same id is sent everything that was not acknowledged.

Threads: ``tick``, ``start`` and ``close`` on the control thread; ``_on_message`` and ``_on_status`` on the link's;
whatever is posted to the intake, and ``_woke``, on the ingest thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from sqlalchemy import Connection

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import StoreError
from fleetui.common.domain.states import Lifecycle
from fleetui.common.link.codec import encode
from fleetui.common.link.messages import Ask
from fleetui.common.link.topics import Down, Topics
from fleetui.common.link.transport import LinkState, LinkStatus, Message
from fleetui.station import broker_watch
from fleetui.station.config import StationConfig
from fleetui.station.counters import Counters
from fleetui.station.health.presence import PresenceBook
from fleetui.station.ingest.batcher import Batcher, FencedError
from fleetui.station.ingest.intake import Intake
from fleetui.station.ingest.ledger import Ledger, Rules
from fleetui.station.ingest.sampler import Sampler
from fleetui.station.leader import Leadership
from fleetui.station.link import MakeLink
from fleetui.station.wishes.kinds import Change
from fleetui.station.wishes.office import Check, Office
from fleetui.store import devices, rollup
from fleetui.store.retention import Retention
from fleetui.store.store import Store

log = logging.getLogger("fleetui.station")

STALL_S = 3.0  # real time without a turn of the ingest thread after which silence is not held against devices
DRAIN_S = 3.5  # what a shutdown gives the ingest thread
ROLLUP_SLICES = 4
TELL_EVERY_S = 60.0


class Leading:
    """See the module's text."""

    def __init__(
        self,
        config: StationConfig,
        store: Store,
        leadership: Leadership,
        clock: Clock,
        real: Clock,
        counters: Counters,
        check: Check,
        make_link: MakeLink,
        wake: Callable[[], None],
        *,
        retention: Retention | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._real = real
        self._counters = counters
        self._retention = retention or Retention()
        self._topics = Topics(config.fleet)
        self.presence = PresenceBook(config.thresholds.rule(config.beat_s, clock.rate))
        rules = Rules(
            config.fleet,
            Lifecycle.ACCEPTED if config.admit == "open" else Lifecycle.PENDING,
            config.gap_age_s,
            config.scaled_limit(clock.rate),
            config.max_devices,
        )
        self.ledger = Ledger(rules, self.presence, Sampler(config.sample_s), counters, config.run)
        self.intake = Intake(clock, counters, 3 * config.receive_maximum)
        self._link = make_link(config.link(), clock)
        self._transport = self._link.transport
        self.batcher = Batcher(
            store,
            leadership,
            self.intake,
            self.ledger,
            counters,
            clock,
            self._transport.ack,
            gather_s=config.gather_s,
            most=config.batch_most,
        )
        self.batcher.on_turn = self._turned
        self.batcher.on_wake = self._woke
        self.office = Office(
            store,
            config.holder,
            clock,
            check,
            self._transact,
            self._send,
            ask_timeout_s=config.ask_timeout_s,
        )
        self._wake = wake  # the control thread has something to do
        self.broker = broker_watch.BrokerWatch()
        self.link_status = LinkStatus(LinkState.IDLE)
        self._was_online = False
        self._down_since = clock.monotonic()
        self._thread = threading.Thread(target=self.batcher.run, name="station-ingest", daemon=True)
        self._judging = False
        self._woke_at: tuple[float, float] | None = None
        self._dropped = counters.dropped
        self._held = counters.held
        self._told_dropped = -TELL_EVERY_S
        self._next_rollup = clock.monotonic() + config.rollup_s / 2
        self._next_retention = clock.monotonic() + config.retention_s
        self._broker_dropped = 0

    def start(self, term: int) -> None:
        """Read the store, then listen."""
        with self._store.read() as connection:
            rows = devices.reported(connection)
        now = self._clock.now()
        self.ledger.load(rows, self._clock.monotonic())
        known = f"{len(rows)} device{'' if len(rows) == 1 else 's'} known"
        name = self._config.station
        whose = "The station" if name == "station" else f"Station {name}"
        self.ledger.tell(now, "station.leads", 1, f"{whose} leads now (term {term}), {known}")
        transport = self._transport
        transport.on_message = self._on_message
        transport.on_status = self._on_status
        transport.subscribe(self._topics.all_up, qos=1)
        transport.subscribe(broker_watch.PATTERN, qos=0)
        self._thread.start()
        self._link.start()

    # ------------------------------------------------------------ the link's thread

    def _on_message(self, message: Message) -> None:
        if message.topic.startswith("$"):
            self.broker.take(message.topic, message.payload)
            if message.token is not None:
                self._transport.ack(message)
            return
        self.intake.offer(message)

    def _on_status(self, status: LinkStatus) -> None:
        before, self.link_status = self.link_status, status
        now, real = self._clock.now(), self._clock.monotonic()
        if status.state is LinkState.ONLINE and before.state is not LinkState.ONLINE:
            # In the queue before the first message of this connection, and so known before it is folded.
            away = real - self._down_since if self._was_online else None
            self._was_online = True
            self.intake.post(lambda: self._link_up(now, away, kept=status.session_present))
        elif before.state is LinkState.ONLINE and status.state is not LinkState.ONLINE:
            self._down_since = real
            self.intake.post(lambda: self._link_down(now, status.reason))

    # ------------------------------------------------------------ the ingest thread

    def _link_up(self, now: float, away_s: float | None, *, kept: bool) -> None:
        self.presence.listen(now)
        if away_s is None:
            return
        text = f"The link to the broker is back after {_seconds(away_s)}; silence counts from now on"
        self.ledger.tell(now, "link.up", 1, text)
        if not kept:
            text = "The broker has forgotten this station's session: reports of the time between may be lost"
            self.ledger.tell(now, "link.forgotten", 3, text)

    def _link_down(self, now: float, reason: str) -> None:
        self.presence.deafen()
        if not self.intake.closed:
            words = f": {reason}" if reason else ""
            self.ledger.tell(now, "link.down", 3, f"The link to the broker {self._config.broker} broke{words}")

    def _woke(self) -> None:
        """Was this machine, or this thread, asleep? Then nobody was listening either."""
        wall, real = self._real.now(), self._real.monotonic()
        last, self._woke_at = self._woke_at, (wall, real)
        if last is None:
            return
        # A suspended machine's monotonic clock stands still, its wall clock does not.
        slept = max(real - last[1], wall - last[0])
        if slept > STALL_S and self.presence.listening:
            now = self._clock.now()
            self.presence.listen(now)
            text = f"This station stood still for {_seconds(slept)}; silence counts from now on"
            self.ledger.tell(now, "station.stalled", 2, text)

    def _judge(self) -> None:
        self._judging = False
        now, real = self._clock.now(), self._clock.monotonic()
        dropped = self._counters.dropped
        if dropped > self._dropped:
            # Signs of life may have been among them.
            if self.presence.listening:
                self.presence.listen(now)
            if real - self._told_dropped >= TELL_EVERY_S:
                self._told_dropped = real
                text = f"{dropped - self._dropped} unconfirmed reports were dropped: this station cannot keep up"
                self.ledger.tell(now, "station.dropped", 3, text)
            self._dropped = dropped
        self.ledger.judge(now, real)

    def _turned(self) -> None:
        ledger = self.ledger
        if ledger.replies:
            replies, ledger.replies = ledger.replies, []
            for reply in replies:
                self.office.answered(reply)
            self._wake()
        if ledger.to_ask:
            names, ledger.to_ask = ledger.to_ask, []
            for name in names:
                self._send(name, f"introduce-{name}"[:64], "report", {}, 60.0)

    # ------------------------------------------------------------ for the office

    def _transact(self, work: Callable[[Connection], str], change: Change) -> Future[str]:
        future: Future[str] = Future()

        def job() -> None:
            if not self.batcher.commit():
                future.set_exception(FencedError("another station leads"))
                return
            try:
                change.before(self.ledger)
                outcome = self.batcher.transact(work)
                change.books(self.ledger)
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                if isinstance(error, FencedError):
                    self.batcher.fenced.set()
                future.set_exception(error)
            else:
                future.set_result(outcome)

        future.add_done_callback(lambda _done: self._wake())
        self.intake.post(job)
        return future

    def _send(self, device: str, ask: str, kind: str, arguments: dict[str, str], seconds: float) -> bool:
        """Queued where there is no link just now, for as long as the question makes sense."""
        payload = encode(Ask(id=ask, kind=kind, arguments=arguments))
        expiry = max(1, int(seconds))
        return self._transport.publish(self._topics.down(device, Down.ASK), payload, qos=1, expiry_s=expiry)

    # ------------------------------------------------------------ the control thread

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def tick(self) -> None:
        """A bounded slice of everything that is the leader's."""
        if not self._judging:
            self._judging = True
            self.intake.post(self._judge)
        try:
            self.office.step()
        except Exception:  # a bug in a wish must not end the station; the next leader takes that wish again
            log.exception("the office for wishes failed")
        if self._counters.held > self._held and len(self.intake) < self._config.receive_maximum:
            # The broker sends what is not acknowledged once more on a new connection, and not before.
            self._held = self._counters.held
            log.info("connecting anew for messages there was no room for")
            self._transport.stop()
            self._transport.start()
        dropped = self.broker.newly_dropped()
        if dropped:
            text = f"The broker had no room for {dropped} messages and dropped them"
            now = self._clock.now()
            self.intake.post(lambda: self.ledger.tell(now, "broker.dropped", 3, text))
        real = self._clock.monotonic()
        if real >= self._next_rollup and not self.batcher.trouble:
            self._next_rollup = real + self._config.rollup_s
            self._roll_up(real)

    def _roll_up(self, real: float) -> None:
        keep = self._retention if real >= self._next_retention else None
        try:
            report = rollup.run(self._store, self._clock.now(), keep=keep, most=ROLLUP_SLICES)
        except StoreError as error:
            log.info("rolling up waits: %s", error)
            return
        if report.more:
            self._next_rollup = real + 0.5
        elif keep is not None:
            self._next_retention = real + self._config.retention_s

    def turn_clock(self) -> None:
        """Fleet time runs at another speed now."""
        rule = self._config.thresholds.rule(self._config.beat_s, self._clock.rate)

        def job() -> None:
            self.presence.use(rule)
            self.ledger.limit(self._config.scaled_limit(self._clock.rate))
            if self.presence.listening:
                self.presence.listen(self._clock.now())

        self.intake.post(job)

    def figures(self) -> dict[str, float]:
        """What the station's own counters do not tell."""
        counts = self.presence.counts
        return {
            "queue": float(len(self.intake)),
            "devices": float(len(self.ledger)),
            **{status.value: float(n) for status, n in dict(counts).items()},
            **self.batcher.lag.drain(),
            **self.broker.figures(),
        }

    def close(self) -> None:
        """Let nothing more in, write and acknowledge what is in, say goodbye."""
        self.batcher.stop()
        if self._thread.ident is not None:  # it was started
            self._thread.join(DRAIN_S)
        if self._thread.is_alive():
            log.warning("the store does not take what came in last; the broker keeps it")
            self.batcher.abandon()
            self._thread.join(0.5)
        self._link.close()


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
