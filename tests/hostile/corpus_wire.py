"""Messages that nobody honest sends: a list to try receivers with.

``CASES`` holds, for each, a name, the topic and payload as they arrive, and the one reason with which it must be
refused. They are addressed to the fleet ``FLEET`` and speak of the device ``DEVICE``. ``GOOD`` are messages of
each kind that must be taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from fleetui.common.domain.errors import Refusal
from fleetui.common.link.codec import CEILINGS, encode
from fleetui.common.link.messages import SCHEMA, Beat, Birth, Event, Gone, Reply, Running, UpMessage, Window
from fleetui.common.link.topics import Topics, Up

FLEET = "test"
DEVICE = "dev-1"
TOPICS = Topics(FLEET)
_head: dict[str, Any] = {"device": DEVICE, "boot": "boot-1", "at": 1_800_000_000.0}
SHAPE = Refusal.UNDECODABLE
_running = Running("cam", "detector", "1.2", "x86-64-v3/fp32", "ab" * 32)

GOOD: dict[Up, UpMessage] = {
    Up.BIRTH: Birth(
        **_head, seq=0, agent="0.1", target="x86-64-v3", site="berlin", tags={"line": "4"}, models=[_running]
    ),
    Up.BEAT: Beat(**_head, seq=1, uptime_s=10.0, cpu=0.5, rows=100, last_error="no\nluck", models=[_running]),
    Up.WIN: Window(
        **_head,
        seq=2,
        handle="cam",
        variant="x86-64-v3/fp32",
        start=1_799_999_940.0,
        length_s=60.0,
        rows=100,
        latency=[0] * 20 + [100],
        outputs=[60, 40],
    ),
    Up.EVENT: Event(**_head, seq=3, kind="model.failed", level=3, codes=["E1", "E2"], text="it failed"),
    Up.REPLY: Reply(**_head, seq=4, ask="a1", ok=True, text="pong", data=b"\x00\x01"),
    Up.GONE: Gone(device=DEVICE, boot="boot-1"),
}


@dataclass(frozen=True)
class Case:
    name: str
    topic: str
    payload: bytes
    reason: Refusal


def fields_of(kind: Up) -> list[Any]:
    """A good message of this kind as a list of plain values."""
    fields: list[Any] = msgspec.msgpack.decode(encode(GOOD[kind]))
    return fields


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def with_field(kind: Up, name: str, value: Any) -> bytes:
    """A good message with one field changed, whatever its limits say."""
    fields = fields_of(kind)
    fields[GOOD[kind].__struct_fields__.index(name)] = value
    return pack(fields)


def _up(kind: Up, name: str, payload: bytes, reason: Refusal) -> Case:
    return Case(f"{kind}: {name}", TOPICS.up(DEVICE, kind), payload, reason)


def _field(kind: Up, name: str, value: Any, reason: Refusal = Refusal.RANGE) -> Case:
    shown = repr(value)
    return _up(
        kind, f"{name} = {shown[:40]}{'…' if len(shown) > 40 else ''}", with_field(kind, name, value), reason
    )


def _topics() -> list[Case]:
    good = encode(GOOD[Up.BEAT])
    wrong = [
        "",
        "/",
        "fleet",
        f"fleet/{FLEET}",
        f"fleet/other/up/{DEVICE}/beat",
        f"fleet/{FLEET}/up/{DEVICE}",
        f"fleet/{FLEET}/up/{DEVICE}/",
        f"fleet/{FLEET}/up/{DEVICE}/Beat",
        f"fleet/{FLEET}/up/{DEVICE}/nonsense",
        f"fleet/{FLEET}/up/{DEVICE}/beat/x",
        f"fleet/{FLEET}/up//beat",
        f"fleet/{FLEET}/up/{'x' * 65}/beat",
        f"fleet/{FLEET}/up/-x/beat",
        f"fleet/{FLEET}/up/a b/beat",
        f"fleet/{FLEET}/up/../beat",
        f"fleet/{FLEET}/up/{DEVICE}\n/beat",
        f"fleet/{FLEET}/up/{DEVICE}\u202e/beat",
        f"fleet/{FLEET}/down/{DEVICE}/desired",
        f"fleet/{FLEET}/blob/{'0' * 64}",
        "$SYS/broker/uptime",
        "a/" * 200,
    ]
    cases = [Case(f"topic {topic[:60]!r}", topic, good, Refusal.TOPIC) for topic in wrong]
    # Kinds that have a place in the tree, and no reader yet.
    return [*cases, *(_up(kind, "no reader", good, Refusal.TOPIC) for kind in (Up.OTA, Up.CAPTURE))]


def _bytes() -> list[Case]:
    nothing = Refusal.UNDECODABLE
    deep = b"\x91" * 5000 + b"\xc0"
    cases = []
    for kind, message in GOOD.items():
        good = encode(message)
        cases += [
            _up(kind, "empty", b"", nothing),
            _up(kind, "cut short", good[:-1], nothing),
            _up(kind, "cut in half", good[: len(good) // 2], nothing),
            _up(kind, "only the head", good[:1], nothing),
            _up(kind, "one byte more", good + b"\x00", nothing),
            _up(kind, "twice", good + good, nothing),
            _up(kind, "oversized", good + b"\x00" * CEILINGS[kind], Refusal.OVERSIZED),
            _up(kind, "oversized zeros", b"\x00" * (CEILINGS[kind] + 1), Refusal.OVERSIZED),
            _up(kind, "JSON", msgspec.json.encode(message), nothing),
            _up(kind, "unused type byte", b"\xc1", nothing),
            _up(kind, "an array of four billion", b"\xdd\xff\xff\xff\xff", nothing),
            _up(kind, "a text of four billion", b"\x9f\x01\xdb\xff\xff\xff\xff", nothing),
            _up(kind, "a map", pack({"v": SCHEMA}), nothing),
            _up(kind, "nil", b"\xc0", nothing),
            _up(kind, "a number", b"\x01", nothing),
            _up(kind, "an empty array", b"\x90", nothing),
            _up(kind, "only the version", pack([SCHEMA]), nothing),
        ]
    beat = encode(GOOD[Up.BEAT])
    return [
        *cases,
        _up(Up.BIRTH, "nested to the bottom", deep, nothing),
        _up(Up.BIRTH, "nested in a field nobody reads", pack([*fields_of(Up.BIRTH), 0])[:-1] + deep, nothing),
        _up(Up.BEAT, "invalid UTF-8", beat.replace(b"boot-1", b"bo\xff\xfe-1"), nothing),
        _up(Up.WIN, "counts that are not there", _announce(Up.WIN, b"\xdd\x7f\xff\xff\xff"), Refusal.RANGE),
    ]


def _announce(kind: Up, header: bytes) -> bytes:
    """The message up to its list of latencies, then the header of a list that does not follow."""
    fields = fields_of(kind)
    place = GOOD[kind].__struct_fields__.index("latency")
    return bytes([0x9F]) + b"".join(pack(field) for field in fields[:place]) + header


def _versions() -> list[Case]:
    cases = []
    for kind in GOOD:
        cases += [_field(kind, "v", version, Refusal.SCHEMA) for version in (0, SCHEMA + 1, -1, 2**40)]
        cases.append(
            _up(kind, "a later schema with other fields", pack([SCHEMA + 1, {"new": True}]), Refusal.SCHEMA)
        )
        cases.append(_field(kind, "v", "1", SHAPE))
        cases.append(_field(kind, "v", True, SHAPE))
    return cases


def _senders() -> list[Case]:
    cases = []
    for kind in GOOD:
        cases += [
            _field(kind, "device", "dev-2", Refusal.FORGED),
            _field(kind, "device", DEVICE.upper(), Refusal.FORGED),
            _field(kind, "device", DEVICE + "\n"),
            _field(kind, "device", ""),
            _field(kind, "device", "a/b"),
            _field(kind, "device", "x" * 65),
            _field(kind, "device", None, SHAPE),
            _field(kind, "boot", "x" * 65),
            _field(kind, "boot", "a\x00b"),
            _field(kind, "boot", 7, SHAPE),
        ]
    return cases


def _limits() -> list[Case]:
    cases = []
    for kind in (Up.BIRTH, Up.BEAT, Up.WIN, Up.EVENT, Up.REPLY):
        cases += [
            _field(kind, "seq", -1),
            _field(kind, "seq", 2**53 + 1),
            _field(kind, "seq", 2**63),
            _field(kind, "seq", 1.5, SHAPE),
            _field(kind, "at", float("nan")),
            _field(kind, "at", float("inf")),
            _field(kind, "at", -1e300),
            _field(kind, "at", "now", SHAPE),
        ]
    long, words = "x" * 401, ["w"] * 65
    model = ["cam", "m", "1", "v", "d", "active"]
    return [
        *cases,
        _field(Up.BIRTH, "name", "x" * 65),
        _field(Up.BIRTH, "name", "\x1b[31mred"),
        _field(Up.BIRTH, "site", "two\nlines"),
        _field(Up.BIRTH, "firmware", "\x9b"),
        _field(Up.BIRTH, "tags", {f"k{i}": "v" for i in range(21)}),
        _field(Up.BIRTH, "tags", {"k": "v" * 65}),
        _field(Up.BIRTH, "tags", {"k\x07": "v"}),
        _field(Up.BIRTH, "tags", {1: "v"}, SHAPE),
        _field(Up.BIRTH, "models", [model] * 65),
        _field(Up.BIRTH, "models", [["a/b", *model[1:]]]),
        _field(Up.BIRTH, "models", [["cam\n", *model[1:]]]),
        _field(Up.BIRTH, "models", [[*model[:5], "act\x00ive"]]),
        _field(Up.BIRTH, "models", [[]], SHAPE),
        _field(Up.BIRTH, "cores", 2**31 + 1),
        _field(Up.BIRTH, "memory_bytes", -1),
        _field(Up.BEAT, "uptime_s", -1.0),
        _field(Up.BEAT, "uptime_s", float("nan")),
        _field(Up.BEAT, "uptime_s", 1e11),
        _field(Up.BEAT, "cpu", float("inf")),
        _field(Up.BEAT, "temperature", float("-inf")),
        _field(Up.BEAT, "cpu", "hot", SHAPE),
        _field(Up.BEAT, "last_error", long),
        _field(Up.BEAT, "last_error", "bell\x07"),
        _field(Up.BEAT, "rows", -5),
        _field(Up.BEAT, "models", [model] * 65),
        _field(Up.WIN, "handle", ""),
        _field(Up.WIN, "handle", "a b"),
        _field(Up.WIN, "handle", "cam\n"),
        _field(Up.WIN, "variant", "\x7f"),
        _field(Up.WIN, "start", float("nan")),
        _field(Up.WIN, "start", 1e300),
        _field(Up.WIN, "length_s", 0.0),
        _field(Up.WIN, "length_s", -60.0),
        _field(Up.WIN, "length_s", float("inf")),
        _field(Up.WIN, "length_s", 32 * 86_400.0),
        _field(Up.WIN, "rows", -1),
        _field(Up.WIN, "latency", [1] * 97),
        _field(Up.WIN, "latency", [101]),
        _field(Up.WIN, "latency", [-1]),
        _field(Up.WIN, "latency", [2**53] * 96),
        _field(Up.WIN, "latency", [0.5], SHAPE),
        _field(Up.WIN, "outputs", [1] * 65),
        _field(Up.WIN, "counts", b"x" * 16_385),
        _field(Up.WIN, "counts", "a text", SHAPE),
        _field(Up.EVENT, "level", 5),
        _field(Up.EVENT, "level", -1),
        _field(Up.EVENT, "codes", words),
        _field(Up.EVENT, "codes", ["a\nb"]),
        _field(Up.EVENT, "text", long),
        _field(Up.EVENT, "text", "\x00"),
        _field(Up.EVENT, "kind", "k" * 65),
        _field(Up.REPLY, "ok", 1, SHAPE),
        _field(Up.REPLY, "text", "\x1b]0;title\x07"),
        _field(Up.REPLY, "data", b"x" * 65_537),
        _field(Up.REPLY, "ask", "x" * 65),
        _field(Up.GONE, "clean", 1, SHAPE),
        _field(Up.GONE, "clean", None, SHAPE),
    ]


CASES: list[Case] = [*_topics(), *_bytes(), *_versions(), *_senders(), *_limits()]
