"""What is said over the wire, as msgspec structs in MessagePack arrays.

Every message begins with its schema version. Fields are only ever appended, with a default, so that an old
station reads a new device and the other way round; ``SCHEMA`` rises when a meaning changes.

Reports carry the device's boot id and a sequence number that rises by one with each report of that boot, over
all kinds: duplicates and reordering are harmless, and a gap is a counted loss. ``at`` is the device's own idea
of fleet time.

Limits are declared on the types (msgspec enforces them while decoding): nothing longer or larger gets in.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

SCHEMA = 1

# \Z, because $ would let a line break pass at the end.
Id = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
# No control characters either (in a line: none but tab and line break); the codec checks that, it is faster there.
Word = Annotated[str, Meta(max_length=64)]
Line = Annotated[str, Meta(max_length=400)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Small = Annotated[int, Meta(ge=0, le=2**31)]
At = Annotated[float, Meta(ge=-1e9, le=1e11)]  # generous: clocks at 1970 and in the future do speak


class Report(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """What each report begins with."""

    v: int = SCHEMA
    device: Id
    boot: Word
    seq: Count
    at: At


class Running(Struct, frozen=True, array_like=True, gc=False):
    """One model on the device: what answers behind a handle now."""

    handle: Id
    model: Word
    version: Word
    variant: Word = ""
    digest: Annotated[str, Meta(max_length=64)] = ""
    state: Word = "active"


class Birth(Report, frozen=True, array_like=True, kw_only=True):
    """First words after a (re)connect: who and what the device is."""

    agent: Word
    target: Word  # hardware class: a key of the target catalogue
    site: Word = ""
    firmware: Word = ""
    name: Word = ""
    cores: Small = 0
    memory_bytes: Count = 0
    disk_bytes: Count = 0
    tags: Annotated[dict[Word, Word], Meta(max_length=20)] = {}
    models: Annotated[list[Running], Meta(max_length=64)] = []
    queued: Small = 0  # reports waiting on the device
    merged: Small = 0  # windows that had to be merged while offline
    dropped: Small = 0  # reports lost on the device for want of space, since boot


class Beat(Report, frozen=True, array_like=True, kw_only=True):
    """Sign of life and vital figures. Shares are 0..1, temperature in °C; NaN where the device cannot tell."""

    uptime_s: Annotated[float, Meta(ge=0, le=1e10)]
    cpu: float = float("nan")
    memory: float = float("nan")
    disk: float = float("nan")
    temperature: float = float("nan")
    clock_offset_s: float = float("nan")
    rows: Count = 0  # inferences since boot
    errors: Count = 0  # failed inferences since boot
    last_error: Line = ""
    models: Annotated[list[Running], Meta(max_length=64)] = []
    queued: Small = 0
    dropped: Small = 0


class Window(Report, frozen=True, array_like=True, kw_only=True):
    """Inference statistics of one handle over a span: counts that can be added up over devices.

    ``latency`` counts inferences per bin of ``common.sketches.latency``; ``counts`` is the packed sketch of
    features and outputs of ``common.sketches`` (empty until a version brings a baseline).
    """

    handle: Id
    variant: Word
    start: At
    length_s: Annotated[float, Meta(gt=0, le=31 * 86400)]
    rows: Count
    errors: Count = 0
    latency: Annotated[list[Count], Meta(max_length=96)] = []
    version: Word = ""
    baseline: Annotated[str, Meta(max_length=64)] = ""
    outputs: Annotated[list[Count], Meta(max_length=64)] = []
    counts: Annotated[bytes, Meta(max_length=16_384)] = b""
    merged: Small = 0  # how many windows were added up into this one while offline
    cold_starts: Small = 0
    throttled: Small = 0


class Event(Report, frozen=True, array_like=True, kw_only=True):
    """Something happened: a word for what, a stack of codes for why (outermost first), a sentence for people."""

    kind: Word
    level: Annotated[int, Meta(ge=0, le=4)] = 1  # 0 debug, 1 info, 2 warning, 3 error, 4 critical
    codes: Annotated[list[Word], Meta(max_length=16)] = []
    text: Line = ""
    subject: Word = ""  # the handle or deployment it is about


class Gone(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """The last will: published by the broker when a device's connection breaks. ``clean`` if it said goodbye."""

    v: int = SCHEMA
    device: Id
    boot: Word
    clean: bool = False


class Reply(Report, frozen=True, array_like=True, kw_only=True):
    """The answer to an :class:`Ask`."""

    ask: Word
    ok: bool
    text: Line = ""
    data: Annotated[bytes, Meta(max_length=65_536)] = b""


class Ask(Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A question to one device, answered by :class:`Reply`; harmless by construction (reads, never changes)."""

    v: int = SCHEMA
    id: Word
    kind: Word  # "report" (birth and beat now), "ping"
    arguments: Annotated[dict[Word, Line], Meta(max_length=16)] = {}


UpMessage = Birth | Beat | Window | Event | Gone | Reply
