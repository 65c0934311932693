"""The loopback in virtual time: repeatable from a seed, and true to what it says of its faults."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.common.domain.clock import ManualClock, SystemClock
from fleetui.common.domain.errors import BugError
from fleetui.common.link.loopback import Faults, LoopbackBroker, LoopbackTransport
from fleetui.common.link.transport import LinkConfig, LinkState, Message, Will
from fleetui.common.link.wheel import Wheel
from tests.helpers.link import Collector
from tests.helpers.wait import wait_until


def _broker(seed: int = 1, faults: Faults | None = None, **options: Any) -> LoopbackBroker:
    return LoopbackBroker(ManualClock(), random.Random(seed), faults, **options)


def _client(broker: LoopbackBroker, client_id: str, *patterns: str, ack: bool = False, **config: Any) -> Collector:
    link = LoopbackTransport(LinkConfig(client_id, **config), broker)
    heard = Collector(link, ack=ack)
    for pattern in patterns:
        link.subscribe(pattern)
    link.start()
    return heard


# ---------------------------------------------------------------- the wheel


def test_time_moves_from_event_to_event() -> None:
    clock = ManualClock()
    wheel, ran = Wheel(clock), []
    for delay in (3.0, 1.0, 2.0, 1.0):
        wheel.call_later(delay, lambda d: ran.append((d, clock.monotonic())), delay)
    wheel.call_later(1.5, ran.append, "never").cancel()
    wheel.run_for(2.5)
    assert ran == [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]
    assert clock.monotonic() == 2.5
    assert wheel.next_at == 3.0
    wheel.run_for(1.0)
    assert wheel.next_at is None


@pytest.mark.logs_warnings("an event of the loopback failed")
def test_a_failing_event_is_counted_and_the_rest_goes_on() -> None:
    wheel, ran = Wheel(ManualClock()), []
    wheel.call_later(0.0, lambda: 1 / 0)
    wheel.call_later(0.0, ran.append, 1)
    assert wheel.run_until_idle() == 2
    assert (ran, wheel.errors) == ([1], 1)


def test_a_circle_without_time_is_found() -> None:
    wheel = Wheel(ManualClock())

    def again() -> None:
        wheel.call_later(0.0, again)

    again()
    with pytest.raises(BugError, match="circle"):
        wheel.run_until_idle(limit=100)


def test_only_a_manual_clock_can_be_run() -> None:
    with pytest.raises(BugError):
        Wheel(SystemClock()).run_for(1.0)


def test_on_a_thread_in_real_time() -> None:
    broker = LoopbackBroker(SystemClock(), random.Random(1), Faults(delay_s=(0.0, 0.01)))
    broker.start_thread()
    with pytest.raises(BugError):
        broker.start_thread()
    receiver = _client(broker, "r", "t")
    sender = _client(broker, "s")
    receiver.wait_online()
    sender.wait_online()
    threads = [
        threading.Thread(target=lambda k=k: [sender.transport.publish("t", b"%d" % k, qos=1) for _ in range(50)])
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(receiver.messages) == 150, what="all")
    receiver.transport.stop()
    sender.transport.stop()
    broker.stop_thread()
    broker.stop_thread()
    assert receiver.transport.status.state is LinkState.IDLE
    assert broker.errors == 0


# ---------------------------------------------------------------- repeatable


def _story(seed: int) -> tuple[list[Any], Any]:
    faults = Faults((0.01, 0.5), loss=0.05, duplicate=0.1, reorder=0.2, break_every_s=30, refuse=0.2)
    broker = _broker(seed, faults)
    heard = [_client(broker, f"c{i}", "t/#", session_expiry_s=100) for i in range(3)]
    for i in range(200):
        broker.call_later(i * 0.5, heard[i % 3].transport.publish, f"t/{i}", b"%d" % i)
        heard[(i + 1) % 3].transport.publish(f"t/{i}", b"q%d" % i, qos=1)
    broker.run_for(300)
    return [(h.statuses, h.payloads, h.transport.counters) for h in heard], broker.counters


def test_the_same_seed_tells_the_same_story_and_another_seed_another() -> None:
    assert _story(5) == _story(5)
    assert _story(5) != _story(6)


# ---------------------------------------------------------------- faults


def test_delay_is_within_its_bounds_and_keeps_order() -> None:
    broker = _broker(3, Faults(delay_s=(0.1, 0.4)))
    arrived: list[tuple[float, bytes]] = []
    receiver = _client(broker, "r", "t")
    receiver.transport.on_message = lambda m: arrived.append((broker.clock.monotonic(), m.payload))
    sender = _client(broker, "s")
    broker.run_for(5)
    sent = broker.clock.monotonic()
    for i in range(100):
        sender.transport.publish("t", b"%d" % i)
    broker.run_for(5)
    assert [payload for _, payload in arrived] == [b"%d" % i for i in range(100)]
    assert all(0.2 <= at - sent <= 0.8 for at, _ in arrived)


def test_reordered_messages_arrive_out_of_order_and_all() -> None:
    broker = _broker(3, Faults(reorder=0.5, reorder_s=2.0))
    receiver, sender = _client(broker, "r", "t"), _client(broker, "s")
    broker.run_for(1)
    for i in range(100):
        sender.transport.publish("t", b"%03d" % i)
    broker.run_for(10)
    assert len(receiver.payloads) == 100
    assert sorted(receiver.payloads) == [b"%03d" % i for i in range(100)]
    assert receiver.payloads != sorted(receiver.payloads)


def test_duplicates_are_flagged() -> None:
    broker = _broker(3, Faults(duplicate=0.5))
    receiver, sender = _client(broker, "r", "t"), _client(broker, "s")
    broker.run_for(1)
    for i in range(40):
        sender.transport.publish("t", b"%d" % i, qos=1)
    broker.run_for(10)
    assert len(receiver.messages) > 60
    assert len(set(receiver.payloads)) == 40
    assert any(m.duplicate for m in receiver.messages)


def test_loss_at_qos_0_is_loss_and_at_qos_1_a_broken_connection() -> None:
    broker = _broker(4)
    receiver = _client(broker, "r", "t", session_expiry_s=1000, backoff_min_s=0.1, backoff_max_s=1.0)
    sender = _client(broker, "s", session_expiry_s=1000, backoff_min_s=0.1, backoff_max_s=1.0)
    broker.run_for(1)
    broker.faults = Faults(loss=0.1)
    for i in range(200):
        sender.transport.publish("t", b"zero %d" % i)
    broker.run_for(1)
    assert 0 < len(receiver.messages) < 200
    assert broker.counters.breaks == 0
    for i in range(200):
        sender.transport.publish("t", b"one %d" % i, qos=1)
    broker.run_for(600)
    assert {p for p in receiver.payloads if p.startswith(b"one")} == {b"one %d" % i for i in range(200)}
    assert broker.counters.breaks > 5


def test_refused_connects_are_tried_again() -> None:
    broker = _broker(5, Faults(refuse=0.7))
    heard = [_client(broker, f"c{i}") for i in range(20)]
    broker.run_for(2000)
    assert all(h.online for h in heard)
    assert any("No answer" in s.reason for h in heard for s in h.statuses)


def test_a_partition_is_noticed_by_keepalive_and_the_will_is_published() -> None:
    broker = _broker()
    watcher = _client(broker, "w", "gone")
    cut = _client(broker, "c", "t", keepalive_s=10, will=Will("gone", b"c"), session_expiry_s=1000)
    broker.run_for(1)
    broker.partition(["c"])
    broker.run_for(5)
    assert cut.online
    assert watcher.payloads == []
    assert cut.transport.publish("u", b"held", qos=1)
    broker.run_for(15)
    assert not cut.online
    assert "Nothing was heard" in next(s.reason for s in cut.statuses if s.state is LinkState.WAITING)
    assert watcher.payloads == [b"c"]
    watcher.transport.subscribe("u")
    watcher.transport.publish("t", b"for later", qos=1)
    broker.run_for(60)
    broker.heal()
    broker.run_for(200)
    assert cut.online
    assert watcher.payloads == [b"c", b"held"]
    assert cut.payloads == [b"for later"]


def test_a_short_partition_is_only_a_delay() -> None:
    broker = _broker()
    a = _client(broker, "a", "t", keepalive_s=60)
    b = _client(broker, "b")
    broker.run_for(1)
    broker.partition(["a"])
    broker.run_for(1)
    for i in range(3):
        b.transport.publish("t", b"%d" % i, qos=1)
    broker.run_for(20)
    assert a.payloads == []
    broker.heal(["a"])
    broker.run_for(100)
    assert a.payloads == [b"0", b"1", b"2"]
    assert a.states.count(LinkState.ONLINE) == 1


def test_who_stops_behind_a_partition_is_gone_once_it_heals() -> None:
    broker = _broker()
    watcher = _client(broker, "w", "gone")
    cut = _client(broker, "c", will=Will("gone", b"c"))
    broker.run_for(1)
    broker.partition(["c"])
    broker.run_for(1)
    cut.transport.stop(say_goodbye=False)
    broker.run_for(1)
    assert broker.connected == ["w", "c"]
    broker.heal()
    broker.run_for(1)
    assert broker.connected == ["w"]
    assert watcher.payloads == [b"c"]


def test_a_broker_that_forgot_says_so() -> None:
    broker = _broker()
    heard = _client(broker, "c", "t", session_expiry_s=1000)
    other = _client(broker, "o")
    broker.run_for(1)
    other.transport.publish("t", b"kept", retain=True, qos=1)
    broker.run_for(1)
    assert broker.retained == {"t": b"kept"}
    broker.down(forget=True)
    broker.run_for(1)
    assert not heard.online
    broker.up()
    broker.run_for(100)
    assert heard.online
    assert not heard.transport.status.session_present
    assert broker.retained == {}
    other.transport.publish("t", b"new", qos=1)
    broker.run_for(1)
    assert heard.payloads[-1] == b"new"


def test_a_broken_connection_comes_back() -> None:
    broker = _broker()
    heard = _client(broker, "c")
    broker.run_for(1)
    broker.break_connection("c")
    broker.break_connection("nobody")
    broker.run_for(10)
    assert heard.states == [
        LinkState.CONNECTING,
        LinkState.ONLINE,
        LinkState.WAITING,
        LinkState.CONNECTING,
        LinkState.ONLINE,
    ]
    assert heard.transport.counters.reconnects == 1


# ---------------------------------------------------------------- access


@pytest.mark.logs_warnings("refused the subscription")
def test_access_rules_hold_for_each_way() -> None:
    broker = _broker()
    broker.allow = lambda client, _act, topic: topic.split("/")[0] in {client, "all"}
    broker.authenticate = lambda config: None if config.password == "right" else "wrong user name or password"
    wrong = _client(broker, "x", password="left")
    a = _client(broker, "a", "a/#", "b/#", "all/#", password="right")
    b = _client(broker, "b", password="right")
    broker.run_for(1)
    assert wrong.transport.status.state is LinkState.REFUSED
    assert wrong.transport.status.reason == "The broker refuses: wrong user name or password"
    assert "b/#" in a.transport.status.reason
    for topic in ("a/1", "b/1", "all/1"):
        b.transport.publish(topic, topic.encode(), qos=1, on_done=b.note(topic))
    broker.run_for(1)
    assert b.done == [("a/1", False), ("b/1", False), ("all/1", True)]  # the second is allowed, but nobody hears
    assert a.payloads == [b"all/1"]
    assert broker.counters.refused == 2


# ---------------------------------------------------------------- bounds


def test_a_sessions_queue_is_bounded_and_the_loss_is_counted() -> None:
    broker = _broker(queue_limit=10)
    away = _client(broker, "away", "t", session_expiry_s=1000)
    sender = _client(broker, "s")
    broker.run_for(1)
    away.transport.stop()
    broker.run_for(1)
    for i in range(25):
        sender.transport.publish("t", b"%d" % i, qos=1)
    broker.run_for(1)
    assert broker.queued("away") == 10
    assert broker.counters.dropped == 15
    assert sender.transport.counters.delivered == 25  # QoS 1 is hop by hop


def test_what_is_too_large_for_the_broker_is_refused_at_once() -> None:
    broker = _broker(max_packet=1000)
    _client(broker, "r", "t")
    sender = _client(broker, "s")
    broker.run_for(1)
    sender.transport.publish("t", b"x" * 2000, qos=1, on_done=sender.note("large"))
    sender.transport.publish("t", b"x", qos=1, on_done=sender.note("small"))
    broker.run_for(1)
    assert sender.done == [("large", False), ("small", True)]


def test_a_publication_that_expired_while_it_waited_is_not_sent() -> None:
    broker = _broker()
    receiver = _client(broker, "r", "t", session_expiry_s=1000)
    sender = _client(broker, "s", backoff_max_s=5.0)
    broker.run_for(1)
    broker.down()
    broker.run_for(1)
    sender.transport.publish("t", b"short", qos=1, expiry_s=10, on_done=sender.note("short"))
    sender.transport.publish("t", b"long", qos=1, expiry_s=1000, on_done=sender.note("long"))
    broker.run_for(60)
    broker.up()
    broker.run_for(120)
    assert sender.done == [("short", False), ("long", True)]
    (message,) = receiver.messages
    assert message.expiry_s is not None
    assert 870 < message.expiry_s <= 940


def test_shared_subscription_without_anybody_there_waits_for_one_of_them() -> None:
    broker = _broker()
    pair = [_client(broker, f"r{i}", "$share/g/t", session_expiry_s=1000) for i in range(2)]
    sender = _client(broker, "s")
    broker.run_for(1)
    for one in pair:
        one.transport.stop()
    broker.run_for(1)
    for i in range(10):
        sender.transport.publish("t", b"%d" % i, qos=1)
    broker.run_for(1)
    for one in pair:
        one.transport.start()
    broker.run_for(1)
    assert sorted(p for one in pair for p in one.payloads) == sorted(b"%d" % i for i in range(10))


# ---------------------------------------------------------------- whatever happens, nothing acknowledged is lost


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    faults=st.builds(
        Faults,
        delay_s=st.tuples(st.just(0.0), st.floats(0.0, 2.0)),
        loss=st.floats(0.0, 0.2),
        duplicate=st.floats(0.0, 0.3),
        reorder=st.floats(0.0, 0.5),
        break_every_s=st.sampled_from([0.0, 5.0, 60.0]),
        refuse=st.floats(0.0, 0.5),
    ),
    outages=st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(1.0, 50.0), st.booleans()), max_size=3),
    manual=st.booleans(),
)
def test_at_least_once_under_any_faults(
    seed: int, faults: Faults, outages: list[tuple[float, float, bool]], manual: bool
) -> None:
    broker = _broker(seed)
    config = {"session_expiry_s": 10**6, "backoff_min_s": 0.1, "backoff_max_s": 5.0, "keepalive_s": 10}
    receiver = _client(broker, "r", "t", ack=manual, manual_ack=manual, receive_maximum=5, **config)
    sender = _client(broker, "s", **config)
    broker.run_for(1)  # what is published before the subscription stands is nobody's loss
    broker.faults = faults
    done: dict[int, bool] = {}

    def publish(i: int) -> None:
        assert sender.transport.publish("t", b"%d" % i, qos=1, on_done=lambda ok: done.__setitem__(i, ok))

    for i in range(60):
        broker.call_later(5.0 + i, publish, i)
    for at, length, cut in outages:
        broker.call_later(at + 5.0, broker.partition if cut else broker.down, *([["s", "r"]] if cut else []))
        broker.call_later(at + 5.0 + length, broker.heal if cut else broker.up)
    broker.run_for(200)
    broker.faults = Faults()
    broker.up()
    broker.heal()
    broker.run_for(200)
    assert done == dict.fromkeys(range(60), True)
    assert {int(p) for p in receiver.payloads} == set(range(60))
    assert broker.queued("r") == 0
    assert broker.errors == 0
    assert sender.transport.counters.delivered == 60


def test_messages_are_values() -> None:
    assert Message("t", b"x", token=1) == Message("t", b"x", token=2)
