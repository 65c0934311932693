"""The core under random interleavings of everything that can happen to it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet_sim.agent.events import Happened, Received, Stopping, Tick, Vitals
from fleet_sim.agent.queue import Limits
from fleetui.common.link import codec
from fleetui.common.link.messages import Ask, Event, Reply, Running, Window
from fleetui.common.link.topics import Down
from tests.helpers.sim import MODEL, TOPICS, Books, counted


class Agent(RuleBasedStateMachine):
    @initialize(
        limits=st.builds(
            Limits,
            reports=st.integers(4, 20),
            bytes=st.sampled_from([500, 1_500, 100_000]),
            events=st.integers(1, 6),
            inflight=st.integers(1, 4),
        ),
        spread_s=st.sampled_from([0.0, 6.0]),
    )
    def begin(self, limits, spread_s):
        self.books = Books(
            limits, window_s=60.0, beat_s=10.0, spread_s=spread_s, models=(MODEL, Running("audio", "siren", "2.1"))
        )
        self.books.start()
        self.limits = limits
        self.set_back = False

    @property
    def running(self):
        return self.books.core.state in {"online", "offline"}

    @rule(
        rows=st.integers(0, 50),
        errors=st.integers(0, 9),
        bin_=st.integers(0, 81),
        late=st.floats(0, 20),
        handle=st.sampled_from(["vibration", "audio"]),
    )
    def infer(self, rows, errors, bin_, late, handle):
        classes = [rows // 2, rows - rows // 2]
        self.books.do(counted(rows, errors, bin_, classes, handle), self.books.now + late)

    @rule(later=st.one_of(st.floats(0, 30), st.floats(0, 5000)), hot=st.booleans())
    def tick(self, later, hot):
        self.books.do(Tick(Vitals(0.5, 0.5, 0.5, 95.0 if hot else 40.0)), self.books.now + later)

    @rule(windows=st.integers(5, 40), rows=st.integers(0, 30))
    def outage(self, windows, rows):
        for _ in range(windows):
            self.books.do(counted(rows), self.books.now + 60.0)

    @rule(back=st.floats(1.5, 100_000))
    def clock_set_back(self, back):
        self.set_back = True
        self.books.do(Tick(), self.books.now - back)

    @rule()
    def connect(self):
        self.books.connect()

    @rule(forget=st.booleans())
    def disconnect(self, forget):
        self.books.disconnect(forget=forget)

    @rule(data=st.data())
    def acknowledge(self, data):
        if self.books.flying:
            self.books.acknowledge(data.draw(st.sampled_from(sorted(self.books.flying))))

    @rule(data=st.data())
    def refuse(self, data):
        if self.books.flying:
            self.books.refuse(data.draw(st.sampled_from(sorted(self.books.flying))))

    @rule(kind=st.sampled_from(["report", "ping", "other"]), ident=st.integers(0, 5))
    def ask(self, kind, ident):
        payload = codec.encode(Ask(id=str(ident), kind=kind))
        self.books.do(Received(TOPICS.down("d1", Down.ASK), payload))

    @rule(junk=st.binary(max_size=20), topic=st.sampled_from(["x", TOPICS.down("d1", Down.DESIRED)]))
    def junk(self, junk, topic):
        self.books.do(Received(topic, junk))

    @rule(text=st.text(alphabet="abc ", max_size=300))
    def happen(self, text):
        self.books.do(Happened("thing", 2, ("a",), text))

    @rule()
    def power_cut(self):
        self.books.crash()

    @precondition(lambda self: self.running)
    @rule(twice=st.booleans())
    def stop(self, twice):
        self.books.do(Stopping())
        if twice:
            self.books.do(Stopping())
        self.books.acknowledge_all()
        self.books.acknowledge_all()
        if self.books.core.state == "stopped":
            assert self.books.closed
        self.books.crash()

    @invariant()
    def sums_hold(self):
        assert self.books.accounted() == self.books.inferred

    @invariant()
    def bounds_hold(self):
        queue = self.books.core.queue
        assert len(queue) <= max(self.limits.reports, self.limits.inflight)
        numbered = sum(entry.numbered for entry in queue)
        assert numbered <= self.limits.inflight
        assert queue.other <= self.limits.events + numbered
        assert queue.bytes == sum(entry.size for entry in queue)
        if numbered < len(queue):
            assert queue.bytes <= self.limits.bytes
        assert queue.flying == sum(entry.flying for entry in queue)

    @invariant()
    def what_was_sent_stays_as_it_was_until_acknowledged(self):
        queued = {(e.report.boot, e.report.seq): codec.encode(e.report) for e in self.books.core.queue}
        for effect in self.books.sent:
            if isinstance(effect.message, Window | Event | Reply):
                number = effect.message.boot, effect.message.seq
                assert number in self.books.acknowledged or queued[number] == self.books.content[number]

    @invariant()
    def the_disk_has_what_the_queue_has(self):
        queue = self.books.core.queue
        kept = {ident: codec.encode(report) for ident, report in queue.snapshot()}
        assert {ident: payload for ident, (_, payload) in self.books.disk.items()} == kept

    @invariant()
    def no_two_windows_share_a_start(self):
        # The station keeps a window by its start: two of one start would overwrite each other.
        if self.set_back:
            return
        sent = {(w.boot, w.seq): (w.handle, w.start) for w in self.books.messages(Window)}
        waiting = [
            (e.report.handle, e.report.start)
            for e in self.books.core.queue
            if isinstance(e.report, Window) and not e.numbered
        ]
        starts = [*sent.values(), *waiting]
        assert len(starts) == len(set(starts))


TestAgent = Agent.TestCase
TestAgent.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAgent.pytestmark = [pytest.mark.timeout(110)]
