"""What ``transport.py`` promises, proved in one text on each transport and broker: memory, our own, mosquitto."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from fleetui.common.domain import states
from fleetui.common.domain.clock import ManualClock
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.loopback import Faults, LoopbackBroker, LoopbackTransport
from fleetui.common.link.transport import LinkConfig, LinkState, LinkStatus, Message, Transport, Will
from tests.helpers import link
from tests.helpers.broker import RunningBroker, running_broker, running_mosquitto
from tests.helpers.link import Collector
from tests.helpers.wait import wait_until


class Bench(Protocol):
    """A broker to try transports on."""

    keeps_window: bool
    parties: list[Party]

    def transport(self, client_id: str, **config: Any) -> Transport: ...

    def settle(self, condition: Callable[[], object], what: str) -> None: ...

    def pass_time(self, seconds: float) -> None: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...


class MemoryBench:
    """Virtual time: nothing waits."""

    keeps_window = True

    def __init__(self) -> None:
        self.parties: list[Party] = []
        self.clock = ManualClock()
        self.broker = LoopbackBroker(self.clock, random.Random(7))

    def transport(self, client_id: str, **config: Any) -> Transport:
        config = {"backoff_min_s": 0.05, "backoff_max_s": 0.5} | config
        return LoopbackTransport(LinkConfig(client_id, **config), self.broker)

    def settle(self, condition: Callable[[], object], what: str) -> None:
        self.broker.run_until_idle()
        for _ in range(2000):
            if condition():
                return
            self.broker.run_for(0.01)
        raise AssertionError(f"{what} did not come true within 20 virtual seconds")

    def pass_time(self, seconds: float) -> None:
        self.broker.run_for(seconds)

    def kill(self) -> None:
        self.broker.down()

    def start(self) -> None:
        self.broker.up()


class SocketBench:
    """Real sockets, real time."""

    def __init__(self, broker: RunningBroker, loop: LinkLoop) -> None:
        # mosquitto 2.0.11 keeps to the receive maximum until the first acknowledgement; then each one has it send
        # a whole window more (plain paho sees the same). Receivers need a bound of their own.
        self.keeps_window = broker.ours
        self.parties: list[Party] = []
        self.broker = broker
        self.loop = loop
        self._seed = 0

    def transport(self, client_id: str, **config: Any) -> Transport:
        self._seed += 1
        return link.mqtt_transport(self.loop, self.broker, client_id, seed=self._seed, **config)

    def settle(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, 20.0, what)

    def pass_time(self, seconds: float) -> None:
        link.pass_time(seconds)

    def kill(self) -> None:
        if self.broker.ours:
            self.broker.kill()
        else:
            self.broker.stop()  # what mosquitto keeps through a kill -9 is not ours to try

    def start(self) -> None:
        self.broker.restart()


@pytest.fixture(params=["memory", "own", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        memory = MemoryBench()
        yield memory
        memory.broker.run_until_idle()
        assert memory.broker.errors == 0
        assert all(follows_the_table(party.heard.statuses) for party in memory.parties)
        return
    if request.param == "own":
        running = running_broker(tmp_path, open=True)
    else:
        # Started by root it would give up the right to write in our folder; otherwise "user" is ignored.
        running = running_mosquitto(tmp_path, config="user root\n")
    with running as broker, link.running_loop() as loop:
        sockets = SocketBench(broker, loop)
        yield sockets
    assert all(follows_the_table(party.heard.statuses) for party in sockets.parties)


def follows_the_table(statuses: list[LinkStatus]) -> bool:
    """Each change of state is one that ``domain/states.py`` draws; a word more about the same state is none."""
    before = states.LINK.start
    for status in statuses:
        after = states.LinkState(str(status.state))
        if after is not before and after not in states.LINK.table[before].values():
            return False
        before = after
    return True


class Party:
    """A transport with its collector, on a bench."""

    def __init__(self, bench: Bench, client_id: str, *patterns: str, ack: bool = False, **config: Any) -> None:
        self.bench = bench
        self.link = bench.transport(client_id, **config)
        self.heard = Collector(self.link, ack=ack)
        bench.parties.append(self)
        for pattern in patterns:
            self.link.subscribe(pattern)

    def online(self) -> Party:
        self.link.start()
        self.bench.settle(lambda: self.heard.online, f"online: {self.link.status}")
        return self

    def synced(self) -> Party:
        """The broker has taken everything that was wished so far."""
        count = len(self.heard.done)
        assert self.link.publish("sync/nobody", b"", qos=1, on_done=self.heard.note("sync"))
        self.bench.settle(lambda: len(self.heard.done) > count, "synced")
        return self

    def say(self, topic: str, payload: bytes, **more: Any) -> None:
        name = payload[:20].decode("latin-1")
        assert self.link.publish(topic, payload, **{"qos": 1, "on_done": self.heard.note(name)} | more)

    def hears(self, *payloads: bytes) -> list[Message]:
        """Exactly these, in this order, since the test began."""
        self.bench.settle(lambda: len(self.heard.messages) >= len(payloads), f"{payloads[:5]}")
        assert self.heard.payloads == list(payloads)
        return self.heard.messages

    def hears_at_least(self, *payloads: bytes) -> list[Message]:
        self.bench.settle(lambda: set(payloads) <= set(self.heard.payloads), f"{payloads[:5]}")
        return self.heard.messages

    def gone(self, *, goodbye: bool = True) -> None:
        self.link.stop(say_goodbye=goodbye)
        self.bench.settle(lambda: self.link.status.state is LinkState.IDLE, "stopped")


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_arrives_as_it_was_sent(bench: Bench, qos: int) -> None:
    receiver = Party(bench, "r", "a/+/c", "x/#").online().synced()
    sender = Party(bench, "s").online()
    sender.say("a/b/c", b"\x00\xff", qos=qos)
    sender.say("a/b/d", b"not this", qos=qos)
    sender.say("x", b"", qos=qos)
    first, second = receiver.hears(b"\x00\xff", b"")
    assert (first.topic, first.qos, first.retain, first.duplicate) == ("a/b/c", qos, False, False)
    assert second.topic == "x"
    bench.settle(lambda: len(sender.heard.done) == 3, "all sent")
    # Of the second nobody will ever hear, and at QoS 1 the sender is told so.
    assert sorted(ok for _, ok in sender.heard.done) == ([False, True, True] if qos else [True, True, True])
    assert (sender.link.counters.sent, sender.link.counters.dropped) == (3, 0)
    assert sender.link.counters.delivered == (2 if qos else 0)
    assert receiver.link.counters.received == 2


def test_a_sender_is_told_when_nobody_will_ever_get_it(bench: Bench) -> None:
    sender = Party(bench, "s").online()
    sender.say("topic", b"unheard", qos=1)
    sender.say("topic", b"kept by the broker", qos=1, retain=True)
    bench.settle(lambda: len(sender.heard.done) == 2, "both answered")
    assert sorted(ok for _, ok in sender.heard.done) == [False, True]
    receiver = Party(bench, "r", "topic", session_expiry_s=600).online().synced()
    receiver.link.stop(say_goodbye=False)
    sender.heard.done.clear()
    sender.say("topic", b"for one who is away", qos=1)
    bench.settle(lambda: len(sender.heard.done) == 1, "answered")
    assert sender.heard.done[0][1] is True


def test_the_lower_qos_of_publication_and_subscription_counts(bench: Bench) -> None:
    receiver = Party(bench, "r")
    receiver.link.subscribe("zero", qos=0)
    receiver.link.subscribe("one", qos=1)
    receiver.online().synced()
    sender = Party(bench, "s").online()
    sender.say("zero", b"a", qos=1)
    sender.synced()
    sender.say("one", b"b", qos=0)
    assert [m.qos for m in receiver.hears(b"a", b"b")] == [0, 0]


def test_order_is_kept_over_thousands(bench: Bench) -> None:
    receiver = Party(bench, "r", "t").online().synced()
    sender = Party(bench, "s", queue_limit=5000).online()
    payloads = [str(i).encode() for i in range(3000)]
    for payload in payloads:
        assert sender.link.publish("t", payload, qos=1)
    receiver.hears(*payloads)


def test_response_topic_correlation_and_expiry_travel(bench: Bench) -> None:
    receiver = Party(bench, "r", "ask").online().synced()
    Party(bench, "s").online().say("ask", b"?", expiry_s=90, response_topic="answer/7", correlation=b"\x00\x01")
    (message,) = receiver.hears(b"?")
    assert (message.response_topic, message.correlation) == ("answer/7", b"\x00\x01")
    assert message.expiry_s is not None
    assert 85 <= message.expiry_s <= 90


def test_a_large_message_arrives_whole_and_the_small_ones_around_it(bench: Bench) -> None:
    receiver = Party(bench, "r", "t").online().synced()
    sender = Party(bench, "s").online()
    large = random.Random(3).randbytes(900_000)
    for payload in (b"before", large, b"after", large, b"end"):
        sender.say("t", payload)
    receiver.hears(b"before", large, b"after", large, b"end")


def test_what_the_receiver_does_not_take_is_not_sent_to_it(bench: Bench) -> None:
    """``max_packet``: larger messages are left out by the broker, and the connection stays."""
    receiver = Party(bench, "r", "t", max_packet=10_000).online().synced()
    sender = Party(bench, "s").online()
    sender.say("t", b"x" * 20_000)
    sender.say("t", b"small")
    receiver.hears(b"small")
    assert receiver.heard.states.count(LinkState.ONLINE) == 1


# ---------------------------------------------------------------- retained


def test_retained_messages_come_with_the_subscription_and_can_be_cleared(bench: Bench) -> None:
    sender = Party(bench, "s").online()
    sender.say("state/a", b"old", retain=True)
    sender.say("state/a", b"new", retain=True)
    sender.say("state/b", b"gone", retain=True)
    sender.say("state/b", b"", retain=True)
    sender.synced()
    receiver = Party(bench, "r", "state/+").online()
    (message,) = receiver.hears(b"new")
    assert message.retain
    sender.say("state/a", b"live", retain=True)
    assert not receiver.hears(b"new", b"live")[1].retain


def test_after_a_reconnect_without_a_session_the_last_word_comes_again(bench: Bench) -> None:
    """A device that was away needs no history: the retained desired state is sent again."""
    device = Party(bench, "d", "desired").online().synced()
    station = Party(bench, "s", session_expiry_s=300).online()
    station.say("desired", b"v1", retain=True)
    device.hears(b"v1")
    bench.kill()
    bench.settle(lambda: not device.heard.online, "noticed")
    station.say("desired", b"v2", retain=True)
    bench.start()
    bench.settle(lambda: b"v2" in device.heard.payloads, "v2")
    assert not device.link.status.session_present


# ---------------------------------------------------------------- will


def test_the_will_is_published_when_a_connection_breaks_and_not_after_a_goodbye(bench: Bench) -> None:
    watcher = Party(bench, "w", "gone/+").online().synced()
    for name, goodbye in (("polite", True), ("crashed", False)):
        client = Party(bench, name, will=Will(f"gone/{name}", name.encode(), retain=name == "crashed")).online()
        client.gone(goodbye=goodbye)
    watcher.hears(b"crashed")
    (message,) = watcher.synced().hears(b"crashed")
    assert (message.topic, message.qos, message.retain) == ("gone/crashed", 1, False)
    late = Party(bench, "late", "gone/+").online()
    assert late.hears(b"crashed")[0].retain


def test_a_will_with_a_delay_waits_and_is_dropped_if_the_client_returns(bench: Bench) -> None:
    watcher = Party(bench, "w", "gone/+").online().synced()
    configs = {
        name: {"will": Will(f"gone/{name}", name.encode(), delay_s=2), "session_expiry_s": 60}
        for name in ("returns", "stays away")
    }
    for name, config in configs.items():
        Party(bench, name, **config).online().gone(goodbye=False)
    again = Party(bench, "returns", **configs["returns"]).online().synced()
    assert again.link.status.session_present
    watcher.synced().hears()
    watcher.hears(b"stays away")  # its will was due after that of the other
    again.gone()


# ---------------------------------------------------------------- sessions


def test_a_session_collects_what_comes_while_its_client_is_away(bench: Bench) -> None:
    away = Party(bench, "r", "t/+", session_expiry_s=600).online().synced()
    away.gone()
    sender = Party(bench, "s").online()
    sender.say("t/1", b"1")
    sender.say("t/0", b"qos 0 is not kept", qos=0)
    sender.say("t/2", b"2")
    sender.synced()
    back = Party(bench, "r", session_expiry_s=600).online()  # subscribes to nothing: the session knows
    assert back.link.status.session_present
    heard = [m for m in back.hears_at_least(b"1", b"2") if m.qos]
    assert [m.payload for m in heard] == [b"1", b"2"]


def test_a_client_that_wants_no_session_gets_none_and_ends_an_old_one(bench: Bench) -> None:
    Party(bench, "r", "t", session_expiry_s=600).online().synced().gone()
    plain = Party(bench, "r").online()
    assert not plain.link.status.session_present
    Party(bench, "s").online().say("t", b"for nobody")
    plain.gone()
    again = Party(bench, "r", session_expiry_s=600).online().synced()
    assert not again.link.status.session_present
    again.synced().hears()


def test_a_session_lives_as_long_as_was_asked_for(bench: Bench) -> None:
    Party(bench, "r", "t", session_expiry_s=1).online().synced().gone()
    bench.pass_time(2.5)
    again = Party(bench, "r", session_expiry_s=1).online()
    assert not again.link.status.session_present


def test_subscriptions_changed_while_away_are_changed_at_the_broker(bench: Bench) -> None:
    client = Party(bench, "r", "old", "kept", session_expiry_s=600, backoff_min_s=1.0).online().synced()
    bench.kill()
    bench.settle(lambda: not client.heard.online, "noticed")
    client.link.unsubscribe("old")
    client.link.subscribe("new")
    bench.start()
    bench.settle(lambda: client.heard.online, "back")
    client.synced()
    sender = Party(bench, "s").online()
    for topic in ("old", "kept", "new"):
        sender.say(topic, topic.encode())
    client.hears(b"kept", b"new")


def test_expired_messages_are_not_delivered_from_a_queue(bench: Bench) -> None:
    Party(bench, "r", "t", session_expiry_s=600).online().synced().gone()
    sender = Party(bench, "s").online()
    sender.say("t", b"short", expiry_s=1)
    sender.say("t", b"long", expiry_s=100)
    sender.say("t", b"for ever")
    sender.say("keep", b"short", retain=True, expiry_s=1)
    sender.synced()
    bench.pass_time(2.2)
    back = Party(bench, "r", "keep", session_expiry_s=600).online().synced()
    long, ever = back.hears(b"long", b"for ever")
    assert ever.expiry_s is None
    assert long.expiry_s is not None
    assert 90 <= long.expiry_s < 100


# ---------------------------------------------------------------- acknowledgement


def test_what_was_not_acknowledged_comes_again_flagged(bench: Bench) -> None:
    receiver = Party(bench, "r", "t", manual_ack=True, session_expiry_s=600).online().synced()
    sender = Party(bench, "s").online()
    for payload in (b"1", b"2", b"3"):
        sender.say("t", payload)
    messages = list(receiver.hears(b"1", b"2", b"3"))
    receiver.link.ack(messages[0])
    receiver.synced()
    receiver.gone(goodbye=False)
    back = Party(bench, "r", manual_ack=True, session_expiry_s=600, ack=True).online()
    again = list(back.hears(b"2", b"3"))
    assert [m.duplicate for m in again] == [True, True]
    # Acknowledgements of the connection before, and second ones, do no harm.
    for message in (*messages, *again):
        back.link.ack(message)
    back.synced()
    sender.say("t", b"4")
    back.hears(b"2", b"3", b"4")
    assert not back.heard.messages[2].duplicate
    back.synced().gone()
    Party(bench, "r", manual_ack=True, session_expiry_s=600).online().synced().hears()


def test_no_more_than_the_receive_maximum_is_on_the_way(bench: Bench) -> None:
    receiver = Party(bench, "r", "t", manual_ack=True, receive_maximum=3).online().synced()
    sender = Party(bench, "s").online()
    payloads = [str(i).encode() for i in range(10)]
    for payload in payloads:
        sender.say("t", payload)
    sender.synced()
    messages = receiver.hears(*payloads[:3])
    Party(bench, "barrier").online().synced()
    receiver.hears(*payloads[:3])
    receiver.link.ack(messages[0])
    bench.settle(lambda: len(messages) >= 4, "one more")
    if not bench.keeps_window:
        return
    receiver.synced()
    receiver.hears(*payloads[:4])
    for message in list(messages):
        receiver.link.ack(message)
    bench.settle(lambda: len(messages) >= 7, "three more")
    receiver.hears(*payloads[:7])


def test_messages_at_qos_0_need_no_acknowledgement(bench: Bench) -> None:
    receiver = Party(bench, "r", "t", manual_ack=True, receive_maximum=1).online().synced()
    sender = Party(bench, "s").online()
    for i in range(5):
        sender.say("t", b"%d" % i, qos=0)
    for message in receiver.hears(b"0", b"1", b"2", b"3", b"4"):
        assert message.token is None
        receiver.link.ack(message)


# ---------------------------------------------------------------- breaking, taking over


def test_publications_wait_for_the_broker_and_arrive_once_it_is_back(bench: Bench) -> None:
    receiver = Party(bench, "r", "t", session_expiry_s=600).online().synced()
    sender = Party(bench, "s", session_expiry_s=600).online()
    sender.say("t", b"before")
    receiver.hears(b"before")
    sender.synced()
    receiver.synced()
    bench.kill()
    bench.settle(lambda: not sender.heard.online and not receiver.heard.online, "noticed")
    sender.say("t", b"meanwhile")
    assert not sender.link.publish("t", b"qos 0 does not wait", qos=0, on_done=sender.heard.note("qos0"))
    assert sender.link.counters.dropped == 1
    bench.start()
    receiver.hears(b"before", b"meanwhile")
    bench.settle(lambda: ("meanwhile", True) in sender.heard.done, "acknowledged")
    assert "qos0" not in {name for name, _ in sender.heard.done}
    for party in (sender, receiver):
        states = party.heard.states
        assert states[:2] == [LinkState.CONNECTING, LinkState.ONLINE]
        assert states[2:4] == [LinkState.WAITING, LinkState.CONNECTING]
        assert states[-1] is LinkState.ONLINE
        assert set(states[2:-1]) <= {LinkState.WAITING, LinkState.CONNECTING}
        waiting = [s for s in party.heard.statuses if s.state is LinkState.WAITING]
        assert [s.attempt for s in waiting] == list(range(1, len(waiting) + 1))
        assert all(s.reason for s in waiting)
        assert all(0 <= s.retry_in_s <= 0.5 for s in waiting)
        assert party.link.counters.reconnects == 1


def test_nothing_acknowledged_is_lost_over_many_breaks(bench: Bench) -> None:
    """At least once means at least once, whoever breaks whenever."""
    if isinstance(bench, MemoryBench):
        bench.broker.faults = Faults(delay_s=(0.001, 0.02))
    sender = Party(bench, "s", session_expiry_s=600, queue_limit=2000).online()
    config = {"manual_ack": True, "session_expiry_s": 600, "receive_maximum": 7}
    Party(bench, "r", "t", **config).online().synced().gone(goodbye=False)
    total = 600
    heard: set[bytes] = set()
    for i in range(total):
        assert sender.link.publish("t", b"%d" % i, qos=1)
    rng = random.Random(5)
    breaks = 0
    while len(heard) < total:
        receiver = Party(bench, "r", ack=True, **config).online()
        enough = min(total, len(heard) + rng.randint(20, 120))
        bench.settle(lambda r=receiver, n=enough: len({*heard, *r.heard.payloads}) >= n, "some more")
        receiver.gone(goodbye=False)
        heard.update(receiver.heard.payloads)
        breaks += 1
    assert breaks >= 2
    assert heard == {b"%d" % i for i in range(total)}
    bench.settle(lambda: sender.link.counters.delivered == total, "all acknowledged to the sender")


def test_the_queue_has_a_bound_and_says_when_it_is_full(bench: Bench) -> None:
    sender = Party(bench, "s", queue_limit=5)
    done: list[bool] = []
    taken = [sender.link.publish("t", b"%d" % i, qos=1, on_done=done.append) for i in range(8)]
    assert taken == [True] * 5 + [False] * 3
    assert sender.link.counters.dropped == 3
    receiver = Party(bench, "r", "t").online().synced()
    sender.online()
    receiver.hears(b"0", b"1", b"2", b"3", b"4")
    bench.settle(lambda: done == [True] * 5, "done")
    assert sender.link.publish("t", b"room again", qos=1)


def test_stop_answers_everything_that_waits(bench: Bench) -> None:
    sender = Party(bench, "s")
    done: list[bool] = []
    for _ in range(3):
        sender.link.publish("t", b"x", qos=1, on_done=done.append)
    bench.kill()
    sender.link.start()
    bench.settle(lambda: LinkState.WAITING in sender.heard.states, "waiting")
    sender.gone()
    bench.settle(lambda: done == [False] * 3, "refused")
    assert sender.heard.states[-1] is LinkState.IDLE
    bench.start()


def test_what_was_published_before_stop_is_sent_before_the_goodbye(bench: Bench) -> None:
    watcher = Party(bench, "w", "last", "gone").online().synced()
    client = Party(bench, "c", will=Will("gone", b"will")).online()
    client.link.publish("last", b"words", qos=1)
    client.link.publish("last", b"and these", qos=0)
    client.gone()
    watcher.hears(b"words", b"and these")


def test_a_stopped_transport_can_be_started_again(bench: Bench) -> None:
    client = Party(bench, "c", "t").online().synced()
    client.gone()
    client.link.stop()
    client.online().synced()
    client.link.start()
    Party(bench, "s").online().say("t", b"hello")
    client.hears(b"hello")
    assert client.heard.states == [
        LinkState.CONNECTING,
        LinkState.ONLINE,
        LinkState.IDLE,
        LinkState.CONNECTING,
        LinkState.ONLINE,
    ]


def test_a_second_client_of_the_same_name_takes_over(bench: Bench) -> None:
    first = Party(bench, "same", backoff_min_s=30.0, backoff_max_s=60.0).online()
    second = Party(bench, "same", "t").online().synced()
    bench.settle(lambda: not first.heard.online, "kicked")
    assert first.link.status.state in {LinkState.WAITING, LinkState.REFUSED}
    assert first.link.status.reason
    Party(bench, "s").online().say("t", b"x")
    second.hears(b"x")


# ---------------------------------------------------------------- subscriptions


def test_after_unsubscribe_nothing_comes(bench: Bench) -> None:
    receiver = Party(bench, "r", "a", "b").online().synced()
    receiver.link.unsubscribe("a")
    receiver.synced()
    sender = Party(bench, "s").online()
    sender.say("a", b"no")
    sender.say("b", b"yes")
    receiver.hears(b"yes")
    receiver.link.unsubscribe("never subscribed")


def test_one_message_for_two_patterns_that_overlap_comes_at_least_once_at_qos_1(bench: Bench) -> None:
    receiver = Party(bench, "r", "a/#", "a/+", "a/b").online().synced()
    sender = Party(bench, "s").online()
    sender.say("a/b", b"x")
    sender.synced()
    receiver.synced()
    bench.settle(lambda: receiver.heard.messages, "x")
    assert set(receiver.heard.payloads) == {b"x"}
    assert 1 <= len(receiver.heard.messages) <= 3


def test_many_subscriptions_at_once(bench: Bench) -> None:
    receiver = Party(bench, "r", *(f"t/{i}" for i in range(200))).online().synced()
    sender = Party(bench, "s").online()
    for i in (0, 49, 50, 199):
        sender.say(f"t/{i}", b"%d" % i)
    receiver.hears(b"0", b"49", b"50", b"199")


def test_a_shared_subscription_gives_each_message_to_one(bench: Bench) -> None:
    pattern = "$share/ingest/t/+"
    parties = [Party(bench, f"r{i}", pattern).online().synced() for i in range(3)]
    sender = Party(bench, "s").online()
    payloads = [b"%d" % i for i in range(90)]
    for payload in payloads:
        sender.say("t/x", payload)

    def heard() -> list[bytes]:
        return [p for party in parties for p in party.heard.payloads]

    bench.settle(lambda: len(heard()) >= 90, "all")
    assert sorted(heard()) == sorted(payloads)
    assert all(party.heard.payloads for party in parties)
    parties[0].gone()
    before = len(heard())
    for payload in payloads:
        sender.say("t/x", payload)
    bench.settle(lambda: len(heard()) == before + 90, "all by the two that are left")


# ---------------------------------------------------------------- callbacks


def test_callbacks_never_run_inside_a_call(bench: Bench) -> None:
    """Every call made from within a callback returns before the next callback begins."""
    depth = 0
    deepest = 0
    link = bench.transport("c")
    seen: list[str] = []

    def enter(name: str, act: Callable[[], object]) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        seen.append(name)
        act()
        depth -= 1

    def on_status(status: Any) -> None:
        def act() -> None:
            if status.state is LinkState.ONLINE:
                link.subscribe("t")
                link.publish("t", b"1", qos=0, on_done=lambda ok: enter(f"done {ok}", lambda: None))
                link.publish("t", b"2", qos=1, on_done=lambda ok: enter(f"done {ok}", lambda: None))

        enter(str(status.state), act)

    def on_message(message: Message) -> None:
        def act() -> None:
            link.ack(message)
            if message.payload == b"2":
                link.unsubscribe("t")
                link.publish("u", b"3", qos=1, on_done=lambda _ok: enter("last", link.stop))

        enter("message", act)

    link.on_status, link.on_message = on_status, on_message
    link.start()
    bench.settle(lambda: link.status.state is LinkState.IDLE and "last" in seen, "done")
    assert deepest == 1
    assert seen.count("message") == 2
    assert seen.count("done True") == 2
    assert seen[-1] == "idle"


@pytest.mark.logs_warnings("failed")
def test_a_listener_that_raises_does_not_take_the_connection_down(bench: Bench) -> None:
    receiver = Party(bench, "r", "t").online().synced()
    remember = receiver.link.on_message

    def fail(message: Message) -> None:
        remember(message)
        raise RuntimeError("a bug")

    receiver.link.on_message = fail
    sender = Party(bench, "s").online()
    sender.say("t", b"1")
    sender.say("t", b"2")
    receiver.hears(b"1", b"2")
    receiver.synced()
    assert receiver.heard.online


def test_nonsense_is_refused_at_the_call(bench: Bench) -> None:
    link = bench.transport("c")
    for topic in ("", "a/+", "a/#", "a\0b", "x" * 20_000):
        with pytest.raises(ValueError, match="topic"):
            link.publish(topic, b"")
    with pytest.raises(ValueError, match="QoS"):
        link.publish("t", b"", qos=2)
    for pattern in ("", "a\0b", "x" * 20_000):
        with pytest.raises(ValueError, match="pattern"):
            link.subscribe(pattern)
