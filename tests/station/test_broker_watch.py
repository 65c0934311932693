from hypothesis import given
from hypothesis import strategies as st

from fleetui.station.broker_watch import FIGURES, PREFIX, BrokerWatch


def test_names_of_mosquitto_and_others_are_understood():
    watch = BrokerWatch()
    for name, value in (
        ("clients/connected", b"12"),
        ("publish/messages/dropped", b"3"),
        ("uptime", b"42 seconds"),
        ("version", b"mosquitto version 2.0.11"),
        ("bytes/received", b"1024"),
        ("load/messages/received/1min", b"6.25"),
    ):
        assert watch.take(PREFIX + name, value)
    assert watch.version == "mosquitto version 2.0.11"
    assert watch.figures() == {
        "broker.clients": 12.0,
        "broker.dropped": 3.0,
        "broker.uptime_s": 42.0,
        "broker.bytes_in": 1024.0,
    }


def test_the_better_name_wins_whatever_comes_first():
    watch = BrokerWatch()
    watch.take(PREFIX + "publish/messages/received", b"5")
    watch.take(PREFIX + "messages/received", b"900")
    assert watch.figures()["broker.messages_in"] == 5
    watch.take(PREFIX + "publish/messages/received", b"6")
    assert watch.figures()["broker.messages_in"] == 6


def test_only_what_was_dropped_since_is_news():
    watch = BrokerWatch()
    assert watch.newly_dropped() == 0
    topic = PREFIX + "publish/messages/dropped"
    watch.take(topic, b"100")
    assert watch.newly_dropped() == 0
    watch.take(topic, b"130")
    assert watch.newly_dropped() == 30
    assert watch.newly_dropped() == 0
    watch.take(topic, b"7")  # restarted
    assert watch.newly_dropped() == 7


def test_a_fleets_topic_is_not_the_brokers():
    assert not BrokerWatch().take("fleet/test/up/d/beat", b"1")


@given(st.sampled_from([n for names in FIGURES.values() for n in names] + ["version", "", "x"]), st.binary())
def test_whatever_a_broker_says_nothing_is_raised(name: str, payload: bytes):
    watch = BrokerWatch()
    assert watch.take(PREFIX + name, payload)
    assert all(isinstance(v, float) for v in watch.figures().values())
    assert watch.version.isprintable()
