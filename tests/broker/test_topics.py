"""Filters, the index and its cached routes, and retained messages: all against the plain rule of matching."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.broker.message import Memory, Message
from fleetui.broker.retained import Retained
from fleetui.broker.topics import Index, Subscription, check_filter, check_topic
from fleetui.broker.wire import PacketError, encode_text
from fleetui.common.link.topics import topic_matches
from tests.broker.strategies import filters, topics


class Somebody:
    def __init__(self, name: str) -> None:
        self.name = name
        self.online = True


def subscription(text: str, qos: int = 1, **options) -> Subscription:
    group, bare = check_filter(text)
    return Subscription(text, bare, group, qos, **options)


operations = st.lists(st.tuples(st.booleans(), st.integers(0, 2), filters(), topics), max_size=25)


@given(operations)
def test_routes_are_right_after_any_changes(steps):
    """Add and remove at random; after each step, cached routes agree with matching every filter by hand."""
    index: Index[Somebody] = Index()
    people = [Somebody(str(i)) for i in range(3)]
    wanted: dict[tuple[Somebody, str], Subscription] = {}
    asked: set[str] = set()
    for add, who, text, topic in steps:
        person = people[who]
        if add:
            wanted[person, text] = subscription(text)
            index.add(person, wanted[person, text])
        elif (person, text) in wanted:
            index.remove(person, wanted.pop((person, text)))
        asked.add(topic)
        for one in asked:
            route = index.route(encode_text(one))
            expected = {p for p, text in wanted if topic_matches(text, one)}
            assert {target[0] for target in route.targets} == expected, one
            assert len(route.targets) == len(expected)
    assert index.count == len(wanted)
    for (person, _), one in list(wanted.items()):
        index.remove(person, one)
    assert index.empty


def test_overlapping_filters_are_one_delivery_with_the_highest_qos():
    index: Index[Somebody] = Index()
    me = Somebody("me")
    index.add(me, subscription("a/+", 1, identifier=1, no_local=True))
    index.add(me, subscription("a/#", 2, identifier=2))
    index.add(me, subscription("a/b", 0, identifier=3, retain_as_published=True))
    targets, _ = index.match("a/b")
    assert len(targets) == 1
    session, qos, no_local, as_published, ids = targets[0]
    assert (session, qos, no_local, as_published, sorted(ids)) == (me, 2, False, True, [1, 2, 3])


def test_thousands_of_topics_to_one_session_share_their_targets():
    index: Index[Somebody] = Index()
    index.add(Somebody("station"), subscription("fleet/f/up/+/+"))
    first = index.route(encode_text("fleet/f/up/a/win")).targets
    assert index.route(encode_text("fleet/f/up/b/win")).targets is first


def test_subscribing_below_one_branch_keeps_the_routes_of_the_others():
    index: Index[Somebody] = Index()
    up = encode_text("fleet/f/up/a/win")
    down = encode_text("fleet/f/down/a/ask")
    route_up, route_down = index.route(up), index.route(down)
    index.add(Somebody("a"), subscription("fleet/f/down/a/+"))
    assert index.routes[up] is route_up
    assert index.route(down) is not route_down


def test_routes_are_bounded():
    index: Index[Somebody] = Index(max_routes=10)
    for i in range(100):
        index.route(encode_text(f"t/{i}"))
    assert len(index.routes) <= 10


def test_shared_groups_take_turns_and_prefer_who_is_there():
    index: Index[Somebody] = Index()
    people = [Somebody(str(i)) for i in range(3)]
    for person in people:
        index.add(person, subscription("$share/g/a/#"))
    _, (group,) = index.match("a/b")
    assert {group.pick()[0] for _ in range(3)} == set(people)
    people[0].online = people[1].online = False
    assert {group.pick()[0] for _ in range(4)} == {people[2]}
    people[2].online = False
    assert len({group.pick()[0] for _ in range(3)}) == 3, "with nobody there, anybody keeps it"
    for person in people:
        index.remove(person, subscription("$share/g/a/#"))
    assert index.match("a/b") == ((), ())
    assert index.empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/#/b",
        "a#",
        "#a",
        "a/+b",
        "+a",
        "a/b#",
        "$share/g",
        "$share//a",
        "$share/g/",
        "$share/+/a",
        "$share/#/a",
        "x" * 2000,
        "/" * 40,
    ],
)
def test_filters_that_are_none(text):
    with pytest.raises(PacketError):
        check_filter(text)


@pytest.mark.parametrize("text", ["#", "+", "/", "a/+/b/#", "+/+", "/#", "$SYS/#", "a//b", " "])
def test_filters_that_are_some(text):
    assert check_filter(text) == (None, text)
    assert check_filter(f"$share/g/{text}") == ("g", text)


@pytest.mark.parametrize("raw", [b"", b"a/#", b"+", b"a\0", b"\xff", b"x" * 2000, b"/" * 40])
def test_topics_that_are_none(raw):
    with pytest.raises(PacketError):
        check_topic(raw)


@settings(max_examples=200)
@given(st.lists(topics, max_size=15), st.lists(topics, max_size=5), filters())
def test_retained_are_found_like_the_rule_says(kept, removed, wanted):
    memory = Memory()
    retained = Retained(memory)
    for topic in kept:
        retained.set(Message(encode_text(topic), topic.encode()))
    for topic in removed:
        assert retained.remove(topic.encode()) == (topic in set(kept))
        kept = [one for one in kept if one != topic]
    found = [message.topic for message in retained.matching(wanted)]
    assert sorted(found) == sorted(topic for topic in set(kept) if topic_matches(wanted, topic))
    assert retained.bytes == sum(len(topic.encode()) for topic in set(kept) if not topic.startswith("$"))
    assert len(retained) == sum(not topic.startswith("$") for topic in set(kept))
    for topic in set(kept):
        retained.remove(topic.encode())
    assert (len(retained), retained.bytes, memory.held) == (0, 0, 0)


@given(st.lists(topics, max_size=20), topics)
def test_retained_below_a_prefix_are_counted(kept, prefix):
    retained = Retained(Memory())
    for topic in kept:
        retained.set(Message(encode_text(topic), b""))
    expected = sum(topic.encode().startswith(prefix.encode()) for topic in set(kept))
    assert retained.count_below(prefix.encode()) == expected


def test_replacing_a_retained_message_lets_go_of_the_old_one():
    memory = Memory()
    retained = Retained(memory)
    retained.set(Message(encode_text("a"), b"x" * 1000))
    before = memory.held
    retained.set(Message(encode_text("a"), b"x" * 10))
    assert memory.held == before - 990
    assert (len(retained), retained.bytes) == (1, 10)
