"""The codec: what is said is understood, what is wrong is refused with its reason, and nothing else happens."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetui.common.domain.errors import Refusal, WireError
from fleetui.common.link.codec import ASK_CEILING, CEILINGS, clean, decode_ask, decode_up, encode
from fleetui.common.link.messages import SCHEMA, Ask, Beat, Birth, Event, Gone, Reply, Running, UpMessage, Window
from fleetui.common.link.topics import Up
from tests.hostile.corpus_wire import CASES, DEVICE, GOOD, TOPICS, Case, fields_of, pack

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
_plain = st.characters(exclude_categories=["Cs", "Cc"])
words = st.text(_plain, max_size=64)
lines = st.text(_plain | st.sampled_from("\n\t"), max_size=400)
counts = st.integers(0, 2**53)
smalls = st.integers(0, 2**31)
times = st.floats(-1e9, 1e11)
vitals = st.floats(allow_infinity=False)
runnings = st.builds(Running, ids, words, words, words, words, words)
_head: dict[str, Any] = {"device": ids, "boot": words, "seq": counts, "at": times}
_models = st.lists(runnings, max_size=5)

births = st.builds(
    Birth,
    **_head,
    agent=words,
    target=words,
    site=words,
    firmware=words,
    name=words,
    cores=smalls,
    memory_bytes=counts,
    disk_bytes=counts,
    tags=st.dictionaries(words, words, max_size=20),
    models=_models,
    queued=smalls,
    merged=smalls,
    dropped=smalls,
)
beats = st.builds(
    Beat,
    **_head,
    uptime_s=st.floats(0, 1e10),
    cpu=vitals,
    memory=vitals,
    disk=vitals,
    temperature=vitals,
    clock_offset_s=vitals,
    rows=counts,
    errors=counts,
    last_error=lines,
    models=_models,
    queued=smalls,
    dropped=smalls,
)


@st.composite
def _windows(draw: st.DrawFn) -> Window:
    latency = draw(st.lists(st.integers(0, 2**40), max_size=96))
    errors = draw(st.integers(0, 2**40))
    fixed = {name: draw(strategy) for name, strategy in _head.items()}
    return Window(
        **fixed,
        handle=draw(ids),
        variant=draw(words),
        start=draw(times),
        length_s=draw(st.floats(0, 31 * 86400, exclude_min=True)),
        rows=sum(latency),
        errors=errors,
        latency=latency,
        version=draw(words),
        baseline=draw(words),
        outputs=draw(st.lists(counts, max_size=64)),
        counts=draw(st.binary(max_size=2000)),
        merged=draw(smalls),
        cold_starts=draw(smalls),
        throttled=draw(smalls),
    )


events = st.builds(
    Event,
    **_head,
    kind=words,
    level=st.integers(0, 4),
    codes=st.lists(words, max_size=16),
    text=lines,
    subject=words,
)
replies = st.builds(Reply, **_head, ask=words, ok=st.booleans(), text=lines, data=st.binary(max_size=2000))
gones = st.builds(Gone, device=ids, boot=words, clean=st.booleans())
MESSAGES: dict[Up, st.SearchStrategy[UpMessage]] = {
    Up.BIRTH: births,
    Up.BEAT: beats,
    Up.WIN: _windows(),
    Up.EVENT: events,
    Up.REPLY: replies,
    Up.GONE: gones,
}
asks = st.builds(Ask, id=words, kind=words, arguments=st.dictionaries(words, lines, max_size=8))
kinds = st.sampled_from(list(MESSAGES))
said = kinds.flatmap(lambda kind: st.tuples(st.just(kind), MESSAGES[kind]))


def _same(one: object, other: object) -> bool:
    """Equal, where NaN equals NaN."""
    return repr(one) == repr(other)


# ---------------------------------------------------------------- honest


@given(said)
def test_every_message_comes_back_as_it_was(given_: tuple[Up, UpMessage]) -> None:
    kind, message = given_
    payload = encode(message)
    if len(payload) > CEILINGS[kind]:
        with pytest.raises(WireError, match="oversized"):
            decode_up(kind, payload, message.device)
        return
    again = decode_up(kind, payload, message.device)
    assert _same(again, message)
    assert encode(again) == payload


@given(asks)
def test_every_question_comes_back_as_it_was(ask: Ask) -> None:
    payload = encode(ask)
    if len(payload) <= ASK_CEILING:
        assert decode_ask(payload) == ask


@pytest.mark.parametrize("kind", GOOD)
def test_the_corpus_of_good_messages_is_taken(kind: Up) -> None:
    assert _same(decode_up(kind, encode(GOOD[kind]), DEVICE), GOOD[kind])


@pytest.mark.parametrize("kind", [k for k in GOOD if k is not Up.GONE])
def test_a_later_minor_version_with_more_fields_is_understood(kind: Up) -> None:
    payload = pack([*fields_of(kind), "something new", {"a": [1]}])
    assert _same(decode_up(kind, payload, DEVICE), GOOD[kind])


def test_an_older_sender_without_the_last_fields_is_understood() -> None:
    fields = fields_of(Up.BEAT)
    required = 6  # up to uptime_s
    beat = decode_up(Up.BEAT, pack(fields[:required]), DEVICE)
    assert isinstance(beat, Beat)
    assert (beat.uptime_s, beat.rows, beat.models) == (10.0, 0, [])
    assert math.isnan(beat.cpu)


@given(said)
def test_there_is_room_below_the_ceiling_for_what_devices_say(given_: tuple[Up, UpMessage]) -> None:
    """The limits of the fields and the ceiling of the whole do not contradict each other for likely messages."""
    kind, message = given_
    if kind is not Up.GONE and len(getattr(message, "models", [])) <= 3:
        assert len(encode(message)) <= CEILINGS[kind]


# ---------------------------------------------------------------- dishonest


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_corpus_is_refused_each_for_its_reason(case: Case) -> None:
    with pytest.raises(WireError) as caught:
        _receive(case.topic, case.payload)
    assert caught.value.reason is case.reason, caught.value
    assert len(caught.value.detail) <= 220


def _receive(topic: str, payload: bytes) -> UpMessage:
    device, kind = TOPICS.parse_up(topic)
    return decode_up(kind, payload, device)


def _tolerant(kind: Up, payload: bytes, device: str = DEVICE) -> UpMessage | None:
    """The message, or None for a refusal; anything else that is raised fails the test."""
    try:
        return decode_up(kind, payload, device)
    except WireError:
        return None


@given(kinds, st.binary(max_size=300))
def test_random_bytes_are_refused_or_understood_and_nothing_else(kind: Up, payload: bytes) -> None:
    _tolerant(kind, payload)


_leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
_tree = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(kinds, st.lists(_tree, max_size=25))
def test_well_formed_nonsense_is_refused_or_understood(kind: Up, fields: list[Any]) -> None:
    _tolerant(kind, pack([SCHEMA, DEVICE, *fields]))
    _tolerant(kind, pack(fields))


@settings(max_examples=300)
@given(kinds, st.data())
def test_mutated_messages_are_refused_or_understood(kind: Up, data: st.DataObject) -> None:
    payload = bytearray(encode(GOOD[kind]))
    for _ in range(data.draw(st.integers(1, 6))):
        act = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat", "overwrite"]))
        at = data.draw(st.integers(0, max(0, len(payload) - 1)))
        if act == "flip" and payload:
            payload[at] ^= 1 << data.draw(st.integers(0, 7))
        elif act == "cut":
            del payload[at : at + data.draw(st.integers(1, 20))]
        elif act == "insert":
            payload[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif act == "repeat":
            payload[at:at] = payload[at : at + 30]
        elif payload:
            payload[at] = data.draw(st.sampled_from([0xC0, 0xC1, 0xCB, 0xDC, 0xDD, 0xDF, 0xDB, 0xFF]))
    message = _tolerant(kind, bytes(payload))
    if message is not None:
        # What was let in obeys the limits: it can be said again.
        assert message.device == DEVICE
        assert _same(decode_up(kind, encode(message), DEVICE), message)


@given(kinds, st.integers(0, 400), st.integers(1, 9000))
@example(Up.BIRTH, 0, 9000)
def test_nesting_bombs_are_refused_at_any_place(kind: Up, at: int, depth: int) -> None:
    good = encode(GOOD[kind])
    at = min(at, len(good))
    for opener in (b"\x91", b"\x81\xa1k", b"\xdd\x00\x00\x00\x01"):
        bomb = good[:at] + opener * depth + good[at:]
        assert _tolerant(kind, bomb) is None or depth < 10


@pytest.mark.parametrize(
    "header", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("place", range(12))
def test_what_is_announced_is_not_allocated(header: bytes, place: int) -> None:
    fields = fields_of(Up.BIRTH)
    payload = b"\xdc\x00\x20" + b"".join(pack(f) for f in fields[:place]) + header
    tracemalloc.start()
    try:
        assert _tolerant(Up.BIRTH, payload) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


@given(kinds, st.integers(0, 3000), ids)
def test_a_message_is_only_taken_from_its_own_device(kind: Up, seed: int, device: str) -> None:
    payload = encode(GOOD[kind])
    if device == DEVICE:
        assert _tolerant(kind, payload, device) is not None
    else:
        with pytest.raises(WireError) as caught:
            decode_up(kind, payload, device)
        assert caught.value.reason is Refusal.FORGED


@given(st.sampled_from([(a, b) for a in GOOD for b in GOOD if a is not b]))
def test_a_message_under_another_kinds_topic_is_refused_or_obeys_that_kinds_limits(pair: tuple[Up, Up]) -> None:
    sent, received = pair
    message = _tolerant(received, encode(GOOD[sent]))
    if message is not None:
        assert type(message) is type(GOOD[received])


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Refusal.UNDECODABLE),
        (b"\xc1", Refusal.UNDECODABLE),
        (b"\x91" * 4000, Refusal.UNDECODABLE),
        (pack([SCHEMA, "a" * 65, "ping"]), Refusal.RANGE),
        (pack([SCHEMA, "a", "pi\x00ng"]), Refusal.RANGE),
        (pack([SCHEMA, "a", "ping", {"k": "\x1b"}]), Refusal.RANGE),
        (pack([SCHEMA, "a", "ping", {"k": "v" * 401}]), Refusal.RANGE),
        (pack([SCHEMA, "a", "ping", {f"k{i}": "v" for i in range(17)}]), Refusal.RANGE),
        (pack([SCHEMA, "a"]), Refusal.UNDECODABLE),
        (pack([SCHEMA + 1, "a", "ping"]), Refusal.SCHEMA),
        (pack([SCHEMA + 1]), Refusal.SCHEMA),
        (b"\x00" * (ASK_CEILING + 1), Refusal.OVERSIZED),
    ],
)
def test_wrong_questions_are_refused_each_for_its_reason(payload: bytes, reason: Refusal) -> None:
    with pytest.raises(WireError) as caught:
        decode_ask(payload)
    assert caught.value.reason is reason


@given(st.binary(max_size=200))
def test_random_bytes_are_no_question_or_a_good_one(payload: bytes) -> None:
    try:
        ask = decode_ask(payload)
    except WireError:
        return
    assert decode_ask(encode(ask)) == ask


# ---------------------------------------------------------------- texts from elsewhere


@given(st.text(st.characters(), max_size=900), st.integers(0, 400), st.booleans())
def test_a_cleaned_text_may_stand_in_a_message(text: str, limit: int, several: bool) -> None:
    kept = clean(text, limit, lines=several)
    assert len(kept) == min(limit, len(text))
    if several:
        message = Event(device=DEVICE, boot="b", seq=1, at=1.0, kind="k", text=kept)
        assert decode_up(Up.EVENT, encode(message), DEVICE) == message
    else:
        word = clean(text, 64, lines=False)
        assert decode_ask(encode(Ask(id="a", kind=word))).kind == word


def test_a_clean_text_is_left_alone() -> None:
    assert clean("Straße 4\n\tüber 80 °C – 日本") == "Straße 4\n\tüber 80 °C – 日本"
    assert clean("a\x1b[31mb\x00\r", lines=False) == "a [31mb  "


def test_structs_are_small_arrays() -> None:
    """The wire form is positions, so the order of fields is a contract."""
    assert Birth.__struct_fields__[:7] == ("v", "device", "boot", "seq", "at", "agent", "target")
    assert Beat.__struct_fields__[:6] == ("v", "device", "boot", "seq", "at", "uptime_s")
    assert Window.__struct_fields__[:10] == (
        *("v", "device", "boot", "seq", "at"),
        *("handle", "variant", "start", "length_s", "rows"),
    )
    assert Gone.__struct_fields__ == ("v", "device", "boot", "clean")
    assert Ask.__struct_fields__ == ("v", "id", "kind", "arguments")
    assert isinstance(msgspec.msgpack.decode(encode(GOOD[Up.GONE])), list)
