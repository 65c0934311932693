"""The station's books: what is known of every device, and what the next commit will write.

:meth:`Ledger.receive` takes one message as it came over the wire and never raises: whatever is wrong with it is
counted, and kept as a sample. Good ones are folded into their device's row. :meth:`Ledger.collect` hands over what
has come together as one batch. Time is always given, so a recording, a test and a live fleet take the same path.

No I/O and no clock here, and no locks: the books belong to one thread (ingest), and so do the counters they keep.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fleetui.common.domain.errors import Refusal, WireError
from fleetui.common.domain.presence import Sign
from fleetui.common.domain.states import Lifecycle, Presence
from fleetui.common.link.codec import decode_up
from fleetui.common.link.messages import Beat, Birth, Gone, Reply, UpMessage
from fleetui.common.link.topics import Topics, Up
from fleetui.station.counters import Counters
from fleetui.station.health.presence import PresenceBook, Turn
from fleetui.station.ingest.fold import Known, Standing, fold, new_device
from fleetui.station.ingest.limits import Bucket, Limit
from fleetui.station.ingest.numbering import LOST_CEILING, Numbers, Verdict
from fleetui.station.ingest.sampler import Sampler
from fleetui.store.records import Batch, DeviceRow, EventRow, Rejected

log = logging.getLogger("fleetui.station")

INTERNAL = "internal"  # the reason where our own code failed on a message
SAMPLE_BYTES = 512
ASK_AGAIN_S = 60.0
TOPICS_KEPT = 200_000
EACH_AT_MOST = 20  # more changes of presence than this at one look are told in one sentence
_PRESENT, _TURNED, _EARLIER = Standing(), Standing(turned=True), Standing(present=False)
_OUT = frozenset({Lifecycle.REJECTED, Lifecycle.DECOMMISSIONED})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the books are kept by."""

    fleet: str
    admit: Lifecycle = Lifecycle.ACCEPTED  # what a device is that says who it is for the first time
    gap_age_s: float = 30.0
    limit: Limit = field(default_factory=Limit)
    max_devices: int = 100_000


class Entry:
    """One device in the books."""

    __slots__ = ("asked", "bucket", "known", "numbers")

    def __init__(self, known: Known, bucket: Bucket) -> None:
        self.known = known
        self.numbers = Numbers(known.row.boot, known.row.last_seq)
        self.bucket = bucket
        self.asked = -ASK_AGAIN_S


class Ledger:
    """See the module's text."""

    def __init__(
        self, rules: Rules, presence: PresenceBook, sampler: Sampler, counters: Counters, run: str
    ) -> None:
        self.rules = rules
        self.presence = presence
        self.counters = counters
        self.replies: list[Reply] = []  # answers to questions, for whoever asked
        self.to_ask: list[str] = []  # devices that should introduce themselves
        self._topics = Topics(rules.fleet)
        self._parsed: dict[str, tuple[str, Up]] = {}
        self._entries: dict[str, Entry] = {}
        self._removed: set[str] = set()
        self._sampler = sampler
        self._batch = Batch()
        self._stored = 0
        self._turns: list[Turn] = []
        self._run = run
        self._told = 0
        self._counted: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def row(self, device: str) -> DeviceRow | None:
        entry = self._entries.get(device)
        return entry.known.row if entry else None

    def load(self, rows: Iterable[DeviceRow], monotonic: float) -> None:
        """Begin from what the store knows (as reported, see ``store.devices.reported``)."""
        for row in rows:
            self._enter(Known(row), monotonic)

    def limit(self, limit: Limit) -> None:
        """Another limit for what one device may send."""
        self.rules = replace(self.rules, limit=limit)

    # ------------------------------------------------------------ messages

    def receive(self, topic: str, payload: bytes, now: float, monotonic: float, *, retained: bool = False) -> None:
        """One message. ``now``: fleet time of its receipt; ``monotonic``: the same in real time."""
        device = ""
        try:
            parsed = self._parsed.get(topic)
            if parsed is None:
                parsed = self._topics.parse_up(topic)
                if len(self._parsed) < TOPICS_KEPT:
                    self._parsed[topic] = parsed
            device, kind = parsed
            self._take(device, kind, payload, now, monotonic, retained=retained)
        except WireError as error:
            self._refuse(topic, payload, now, error.reason, error.detail, device)
        except Exception as error:  # a bug of ours must cost one message, not the station
            log.exception("a message on %s could not be folded", topic[:120])
            self._refuse(topic, payload, now, INTERNAL, repr(error)[:200], device)

    def _take(self, device: str, kind: Up, payload: bytes, now: float, monotonic: float, *, retained: bool) -> None:
        entry = self._entries.get(device)
        if entry is not None:
            if entry.known.row.lifecycle in _OUT:
                raise WireError(Refusal.UNKNOWN_DEVICE, entry.known.row.lifecycle)
            if not entry.bucket.take(self.rules.limit, monotonic):
                raise WireError(Refusal.RATE, f"more than {self.rules.limit.per_second:g} a second")
        if retained:
            raise WireError(Refusal.STALE, "kept by the broker from before")
        message = decode_up(kind, payload, device)
        self.counters.decoded += 1
        if entry is None:
            entry = self._admit(device, message, now, monotonic)
        elif entry.known.row.lifecycle == Lifecycle.PENDING and not isinstance(message, Birth):
            raise WireError(Refusal.UNKNOWN_DEVICE, "waits to be accepted")
        if isinstance(message, Gone):
            self._gone(entry, message, now)
            return
        numbers = entry.numbers
        verdict, lost = numbers.take(message.boot, message.seq, monotonic, self.rules.gap_age_s)
        birth, beat = isinstance(message, Birth), isinstance(message, Beat)
        if verdict is Verdict.DUPLICATE:
            self.counters.duplicates += 1
            row = entry.known.row
            self._put(entry, replace(row, duplicates=row.duplicates + 1))
            self._lose(entry, lost)
            return
        if verdict is Verdict.OLD and (birth or beat):
            raise WireError(Refusal.STALE, f"number {message.seq} of {message.boot}")
        if verdict is Verdict.LATE:
            self.counters.late += 1
        turned, more = numbers.turn(message.boot, birth=birth, beat=beat)
        standing = _TURNED if turned else _PRESENT if message.boot == numbers.boot else _EARLIER
        folded = fold(entry.known, message, now, standing)
        entry.known = folded.known
        batch = self._batch
        batch.devices[device] = folded.known.row
        if folded.sample is not None:
            batch.samples.append(folded.sample)
        if folded.window is not None:
            batch.windows.append(folded.window)
            self._sampler.add(folded.window.latency)
        if folded.event is not None:
            batch.events.append(folded.event)
        if isinstance(message, Reply):
            self.replies.append(message)
        self._stored += 1
        if lost or more:
            self._lose(entry, lost + more)
        if standing is not _EARLIER:
            turn = self.presence.heard(device, Sign.BIRTH if birth else Sign.HEARD, folded.heard)
            if turn is not None:
                self._turn(turn)

    def _admit(self, device: str, message: UpMessage, now: float, monotonic: float) -> Entry:
        """A device that is not in the books."""
        if isinstance(message, Gone):
            raise WireError(Refusal.UNKNOWN_DEVICE, "a last will of a device that is not known")
        if not isinstance(message, Birth) and (
            device in self._removed or self.rules.admit is not Lifecycle.ACCEPTED
        ):
            raise WireError(Refusal.UNKNOWN_DEVICE, "not introduced")
        if len(self._entries) >= self.rules.max_devices:
            raise WireError(Refusal.UNKNOWN_DEVICE, f"more than {self.rules.max_devices} devices")
        self._removed.discard(device)
        entry = self._enter(new_device(device, now, self.rules.admit.value), monotonic)
        if not isinstance(message, Birth) and monotonic - entry.asked >= ASK_AGAIN_S:
            entry.asked = monotonic
            self.to_ask.append(device)
        return entry

    def _gone(self, entry: Entry, message: Gone, now: float) -> None:
        if message.boot != entry.numbers.boot:
            raise WireError(Refusal.STALE, "a last will of an earlier boot")
        self._stored += 1
        turn = self.presence.heard(message.device, Sign.GOODBYE if message.clean else Sign.WILL, now)
        if turn is not None:
            self._turn(turn)

    def _refuse(self, topic: str, payload: bytes, now: float, reason: str, detail: str, device: str) -> None:
        self.counters.reject(reason)
        self._batch.rejected.append(
            Rejected(now, topic[:200], str(reason), detail, device, len(payload), payload[:SAMPLE_BYTES])
        )
        entry = self._entries.get(device)
        if entry is not None:
            row = entry.known.row
            self._put(entry, replace(row, rejected=row.rejected + 1))

    def _enter(self, known: Known, monotonic: float) -> Entry:
        entry = Entry(known, Bucket(self.rules.limit, monotonic))
        self._entries[known.row.device] = entry
        if known.row.lifecycle == Lifecycle.ACCEPTED:
            self.presence.watch(known.row)
        return entry

    def _put(self, entry: Entry, row: DeviceRow) -> None:
        entry.known = replace(entry.known, row=row)
        self._batch.devices[row.device] = row

    def _lose(self, entry: Entry, change: int) -> None:
        if not change:
            return
        row = entry.known.row
        lost = min(max(row.lost + change, 0), LOST_CEILING)
        self.counters.lost += lost - row.lost
        self._put(entry, replace(row, lost=lost))

    # ------------------------------------------------------------ the passing of time

    def judge(self, now: float, monotonic: float, most: int = 500) -> None:
        """Who has been silent for too long? And the fleet's own curves, when they are due."""
        for turn in self.presence.judge(now, most):
            self._turn(turn)
        self.flush_turns(now)
        point = self._sampler.sample(now, self.presence.counts, self._rows(), self.counters, monotonic)
        if point is not None:
            self._batch.fleet.append(point)

    def _rows(self) -> Iterable[DeviceRow]:
        return (entry.known.row for entry in self._entries.values())

    def _turn(self, turn: Turn) -> None:
        entry = self._entries[turn.device]
        self._put(entry, replace(entry.known.row, status=turn.after.value, status_since=turn.since))
        if turn.after is Presence.OFFLINE or (turn.after is Presence.ONLINE and turn.before is not Presence.LATE):
            self._turns.append(turn)

    def flush_turns(self, now: float) -> None:
        """Say who went and who came: each by name, or all in one sentence where they are many."""
        turns, self._turns = self._turns, []
        for kind, level, one, many in (
            ("device.offline", 2, "went offline", "devices went offline"),
            ("device.online", 1, "is back online", "devices are back online"),
            ("device.joined", 1, "joined the fleet", "devices joined the fleet"),
        ):
            found = [t for t in turns if _kind(t) == kind]
            if len(found) > EACH_AT_MOST:
                self.tell(now, kind, level, f"{len(found)} {many}")
            else:
                for turn in found:
                    self.tell(turn.since, kind, level, f"{turn.device} {one}", device=turn.device)

    def tell(self, now: float, kind: str, level: int, text: str, *, device: str = "", subject: str = "") -> None:
        """An event of the control room itself, written with the next commit."""
        self._told += 1
        self._batch.events.append(
            EventRow(now, kind, level, text, device, (), subject, f"station:{self._run}", self._told, "station")
        )

    # ------------------------------------------------------------ what people decide

    def set_lifecycle(self, device: str, lifecycle: Lifecycle) -> None:
        """A person's decision; its row in the store is written by whoever carries the wish out."""
        entry = self._entries.get(device)
        if entry is None:
            return
        row = replace(entry.known.row, lifecycle=lifecycle.value)
        entry.known = replace(entry.known, row=row)
        if lifecycle is Lifecycle.ACCEPTED and device not in self.presence:
            self.presence.watch(row)
        elif lifecycle is not Lifecycle.ACCEPTED:
            self.presence.forget(device)
            if row.status != Presence.UNKNOWN.value:
                self._put(entry, replace(row, status=Presence.UNKNOWN.value, status_since=row.last_seen))

    def forget(self, device: str) -> None:
        """Strike a device out. It may come back by introducing itself, and is new then."""
        self._entries.pop(device, None)
        self._batch.devices.pop(device, None)
        self.presence.forget(device)
        self._turns = [t for t in self._turns if t.device != device]
        self._removed.add(device)

    # ------------------------------------------------------------ the next commit

    @property
    def waiting(self) -> int:
        """How many rows the next commit would write."""
        return len(self._batch) + len(self._batch.fleet)

    def collect(self) -> tuple[Batch, int]:
        """What has come together since the last time, and how many messages are in it."""
        batch, self._batch = self._batch, Batch()
        stored, self._stored = self._stored, 0
        batch.counters = self._gained()
        return batch, stored

    def _gained(self) -> dict[str, int]:
        """What the counters gained since the last batch: the store adds them up over all stations."""
        c = self.counters
        now: Mapping[str, int] = {
            "received": c.received,
            "decoded": c.decoded,
            "rejected": c.rejected,
            "duplicates": c.duplicates,
            "lost": c.lost,
            "dropped": c.dropped,
        }
        gained = {name: value - self._counted.get(name, 0) for name, value in now.items()}
        self._counted = dict(now)
        return {name: value for name, value in gained.items() if value}


def _kind(turn: Turn) -> str:
    if turn.after is Presence.OFFLINE:
        return "device.offline"
    return "device.joined" if turn.before is Presence.UNKNOWN else "device.online"
