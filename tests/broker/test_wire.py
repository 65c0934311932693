"""Integers, texts and properties: round trips, and what must be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.broker import wire
from fleetui.broker.wire import PacketError, Reason
from tests.broker.strategies import properties_for


@given(st.integers(0, wire.MAX_VARINT))
def test_varint_round_trip(value):
    data = wire.encode_varint(value)
    assert wire.decode_varint(data, 0, len(data)) == (value, len(data))
    assert len(data) == 1 + sum(value >= 128**n for n in (1, 2, 3))


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\xff\xff\xff", b"\xff\xff\xff\xff\x01", b"\x80\x00", b"\x81\x80\x00"]
)
def test_varint_refuses_unfinished_too_long_and_padded(data):
    with pytest.raises(PacketError) as caught:
        wire.decode_varint(data, 0, len(data))
    assert caught.value.reason == Reason.MALFORMED


def test_varint_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="does not fit"):
        wire.encode_varint(wire.MAX_VARINT + 1)


@given(st.text().filter(lambda t: "\0" not in t))
def test_text_round_trip(text):
    data = b"x" + wire.encode_text(text) + b"y"
    assert wire.decode_text(data, 1, len(data)) == (text, len(data) - 1)


@pytest.mark.parametrize("raw", [b"a\0b", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf"])
def test_text_refuses_null_and_what_is_not_utf8(raw):
    with pytest.raises(PacketError):
        wire.decode_text(wire.encode_binary(raw), 0, len(raw) + 2)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_binary_never_reads_past_the_end(data, end):
    end = min(end, len(data))
    try:
        value, stop = wire.decode_binary(data, 0, end)
    except PacketError:
        return
    assert stop <= end
    assert value == data[2:stop]


@pytest.mark.parametrize(
    "allowed", [wire.IN_CONNECT, wire.IN_WILL, wire.IN_CONNACK, wire.IN_ACK, wire.IN_SUBSCRIBE, wire.IN_DISCONNECT]
)
def test_properties_round_trip(allowed):
    @given(properties_for(allowed))
    def check(properties):
        data = wire.encode_properties(properties)
        assert wire.decode_properties(data, 0, len(data), allowed) == (properties, len(data))

    check()


@given(properties_for(wire.IN_PUBLISH), st.data())
def test_cut_properties_are_refused(properties, data):
    encoded = wire.encode_properties(properties)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(PacketError):
        wire.decode_properties(encoded[:cut], 0, cut, wire.IN_PUBLISH)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"\x02\x24\x00", Reason.MALFORMED),  # maximum QoS does not belong into CONNECT
        (b"\x02\xfe\x00", Reason.MALFORMED),  # nobody knows 254
        (b"\x0a\x11\0\0\0\1\x11\0\0\0\1", Reason.PROTOCOL_ERROR),  # session expiry twice
        (b"\x03\x21\x00\x00", Reason.PROTOCOL_ERROR),  # receive maximum 0
        (b"\x05\x27\x00\x00\x00\x00", Reason.PROTOCOL_ERROR),  # maximum packet size 0
        (b"\x02\x17\x02", Reason.PROTOCOL_ERROR),  # a flag that is 2
        (b"\x04\x11\x00\x00\x00", Reason.MALFORMED),  # cut inside
        (b"\x7f\x11\x00", Reason.MALFORMED),  # longer than there is
    ],
)
def test_properties_that_must_not_be(block, reason):
    with pytest.raises(PacketError) as caught:
        wire.decode_properties(block, 0, len(block), wire.IN_CONNECT)
    assert caught.value.reason == reason
