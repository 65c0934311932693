"""Bytes to messages and back, with ceilings.

Decoding never raises anything but :class:`WireError` and never allocates beyond the ceiling of its kind: the
size is checked before a byte is parsed, the limits of each field while parsing, finite numbers and plain text
after.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn

import msgspec

from fleetui.common.domain.errors import Refusal, WireError
from fleetui.common.link.messages import SCHEMA, Ask, Beat, Birth, Event, Gone, Reply, Running, UpMessage, Window
from fleetui.common.link.topics import Up

CEILINGS: dict[Up, int] = {
    Up.BIRTH: 16 * 1024,
    Up.BEAT: 8 * 1024,
    Up.WIN: 24 * 1024,
    Up.EVENT: 8 * 1024,
    Up.OTA: 64 * 1024,
    Up.CAPTURE: 256 * 1024,
    Up.REPLY: 128 * 1024,
    Up.GONE: 1024,
}
ASK_CEILING = 16 * 1024

_STRUCTS: dict[Up, type[UpMessage]] = {
    Up.BIRTH: Birth,
    Up.BEAT: Beat,
    Up.WIN: Window,
    Up.EVENT: Event,
    Up.REPLY: Reply,
    Up.GONE: Gone,
}
_NOT_IN_WORDS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NOT_IN_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_encoder = msgspec.msgpack.Encoder()
_decoders = {kind: msgspec.msgpack.Decoder(struct) for kind, struct in _STRUCTS.items()}
_ask_decoder = msgspec.msgpack.Decoder(Ask)
_version_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


def clean(text: str, limit: int = 400, *, lines: bool = True) -> str:
    """``text`` as it may stand in a message: no control characters (line breaks if ``lines``), no longer than that.

    For texts that come from elsewhere, such as an exception's; a message that holds others is refused.
    """
    return (_NOT_IN_LINES if lines else _NOT_IN_WORDS).sub(" ", text[:limit])


def encode(message: UpMessage | Ask) -> bytes:
    return _encoder.encode(message)


def decode_up(kind: Up, payload: bytes, device: str) -> UpMessage:
    """The report of ``kind`` that ``device`` sent (by its topic). Raises only :class:`WireError`."""
    if len(payload) > CEILINGS[kind]:
        raise WireError(Refusal.OVERSIZED, f"{len(payload)} bytes of {kind}, at most {CEILINGS[kind]}")
    decoder = _decoders.get(kind)
    if decoder is None:
        raise WireError(Refusal.TOPIC, f"nothing reads {kind} yet")
    try:
        message: UpMessage = decoder.decode(payload)
    except msgspec.ValidationError as error:
        _raise_for(payload, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError, OverflowError) as error:
        raise WireError(Refusal.UNDECODABLE, str(error)[:200]) from None
    if message.v != SCHEMA:
        raise WireError(Refusal.SCHEMA, f"schema {message.v}, known is {SCHEMA}")
    if message.device != device:
        raise WireError(Refusal.FORGED, f"says {message.device!r}")
    _check(message)
    return message


def decode_ask(payload: bytes) -> Ask:
    if len(payload) > ASK_CEILING:
        raise WireError(Refusal.OVERSIZED, f"{len(payload)} bytes of ask")
    try:
        ask = _ask_decoder.decode(payload)
    except msgspec.ValidationError as error:
        _raise_for(payload, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError, OverflowError) as error:
        raise WireError(Refusal.UNDECODABLE, str(error)[:200]) from None
    if ask.v != SCHEMA:
        raise WireError(Refusal.SCHEMA, f"schema {ask.v}, known is {SCHEMA}")
    texts = "".join((ask.id, ask.kind, *ask.arguments))
    if _NOT_IN_WORDS.search(texts) or _NOT_IN_LINES.search("".join(ask.arguments.values())):
        raise WireError(Refusal.RANGE, "control characters in a text")
    return ask


def _raise_for(payload: bytes, detail: str) -> NoReturn:
    """MessagePack it is, but not as it should be: of another version, of another shape, or beyond a limit."""
    if _foreign_schema(payload):
        reason = Refusal.SCHEMA
    else:
        # "Expected `array`, got `int`" tells of a wrong shape, "Expected `int` >= 0" of a limit.
        reason = Refusal.UNDECODABLE if ", got " in detail else Refusal.RANGE
    raise WireError(reason, detail[:200]) from None


def _foreign_schema(payload: bytes) -> bool:
    """A message of another schema version may have other fields; then the version is the reason to give."""
    try:
        fields = _version_decoder.decode(payload)
        return bool(fields) and msgspec.msgpack.decode(fields[0], type=int) != SCHEMA
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MemoryError, OverflowError):
        return False


def _check(message: UpMessage) -> None:
    """What types cannot say: time stamps are numbers, counts add up, texts hold no control characters."""
    words: list[str] = [message.boot]
    lines = ""
    if isinstance(message, Gone):
        pass
    elif not math.isfinite(message.at):
        raise WireError(Refusal.RANGE, "at is not a finite number")
    elif isinstance(message, Window):
        if not (math.isfinite(message.start) and math.isfinite(message.length_s)):
            raise WireError(Refusal.RANGE, "the window's span is not finite")
        if sum(message.latency) > message.rows + message.errors:
            raise WireError(Refusal.RANGE, "more latencies than rows")
        words += (message.variant, message.version, message.baseline)
    elif isinstance(message, Beat):
        for value in (message.cpu, message.memory, message.disk, message.temperature, message.clock_offset_s):
            if math.isinf(value):
                raise WireError(Refusal.RANGE, "an infinite vital figure")
        lines = message.last_error
        _add_running(words, message.models)
    elif isinstance(message, Birth):
        words += (message.agent, message.target, message.site, message.firmware, message.name)
        for item in message.tags.items():
            words += item
        _add_running(words, message.models)
    elif isinstance(message, Event):
        words += (message.kind, message.subject, *message.codes)
        lines = message.text
    else:
        words.append(message.ask)
        lines = message.text
    if _NOT_IN_WORDS.search("".join(words)) or (lines and _NOT_IN_LINES.search(lines)):
        raise WireError(Refusal.RANGE, "control characters in a text")


def _add_running(words: list[str], models: list[Running]) -> None:
    for running in models:
        words += (running.model, running.version, running.variant, running.digest, running.state)
