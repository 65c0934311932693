"""What outlives the process: each step of a kept session and each retained message goes to the journal.

The core and its sessions call the small methods here as things happen; ``commit`` ends a turn. Without a journal
every one of them does nothing. Wills do not outlive the process: who was connected when it died is expected
back. A message's body is written once per generation of the journal, the first time something refers to it.

When the journal has grown well beyond what is alive, a snapshot is written in slices of at most ``SLICE`` bytes
between the turns, so that hundreds of large retained blobs stall nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fleetui.broker import records
from fleetui.broker.journal import Journal
from fleetui.broker.message import Message
from fleetui.broker.packets import Request
from fleetui.broker.records import KeptSession, Reading
from fleetui.broker.session import Item, Session
from fleetui.broker.topics import Subscription, check_filter
from fleetui.broker.wire import PacketError

if TYPE_CHECKING:
    from fleetui.broker.core import Core

log = logging.getLogger("fleetui.broker")

FLOOR: Final = 32 * 1024 * 1024  # below this a journal is left alone
SLICE: Final = 128 * 1024
UNFINISHED_S: Final = 1.0  # after a start that found an unfinished snapshot, until the next
PAUSE_S: Final = 0.004  # between slices: at most 32 MB/s, and most of the time for clients

_enqueued = records.ENQUEUED.pack
_finished = records.FINISHED.pack


class State:
    """The journal's side of a core. All on the event loop's thread."""

    def __init__(self, journal: Journal | None, *, floor: int = FLOOR) -> None:
        self.journal = journal
        self._floor = floor
        self._core: Core | None = None
        self._message = 0
        self._session = 0
        self._slices: Iterator[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retry_above = 0
        self.snapshots = 0

    @property
    def trouble(self) -> str:
        return self.journal.trouble if self.journal is not None else ""

    # ------------------------------------------------------------ starting

    def restore(self, core: Core) -> None:
        """Fill an empty core with what the files say."""
        self._core = core
        journal = self.journal
        if journal is None:
            return
        reading = Reading()
        for frame in journal.read():
            try:
                reading.take(frame)
            except ValueError as error:
                log.warning("A part of the journal in %s makes no sense and is left out: %s", journal.folder, error)
        self._message = reading.last_message
        self._session = reading.last_session
        core.retained.fill(reading.retained.values())
        newest: dict[str, KeptSession] = {kept.client_id: kept for kept in reading.sessions.values()}
        for kept in newest.values():
            self._restore_session(core, kept, reading.messages)
        if journal.unfinished or journal.damaged:
            self._timer = core.loop.call_later(UNFINISHED_S, self._shorten)
        if reading.sessions or reading.retained:
            log.info("Restored %d sessions and %d retained messages", len(core.sessions), len(core.retained))

    @staticmethod
    def _restore_session(core: Core, kept: KeptSession, messages: dict[int, Message]) -> None:
        station = kept.client_id in core.directory.stations and bool(kept.proven)
        session = Session(core, kept.client_id, kept.proven, station=station)
        session.journal_id = kept.id
        session.expiry = kept.expiry
        session.gone_at = kept.gone_at or core.unix  # connected when the broker died: away since now
        session.number = kept.number
        session.unreleased = kept.inbound or None
        for text, (options, identifier) in kept.subscriptions.items():
            try:
                group, bare = check_filter(text)
            except PacketError:
                continue
            request = Request.from_options(text, options)
            subscription = Subscription(
                text, bare, group, request.qos, request.no_local, request.retain_as_published, identifier or None
            )
            session.subscriptions[text] = subscription
            core.index.add(session, subscription)
        queue: deque[Item] = deque()
        # QoS 1 does not say when it goes out; but what came before something that did was on its way as well.
        on_its_way = max((number for number, item in kept.items.items() if item.packet_id), default=0)
        used = {item.packet_id for item in kept.items.values()}
        free = (packet_id for packet_id in range(1, 65_536) if packet_id not in used)
        for number in sorted(kept.items):
            item = kept.items[number]
            if item.received:
                session.inflight[item.packet_id] = (None, 2, 0, (), number, None, 0)
                continue
            if not item.packet_id and number < on_its_way:
                item.packet_id = next(free)
            message = messages[item.message]
            weight = len(message.payload)
            message.hold(core.memory)
            session.bytes += weight
            restored: Item = (message, item.qos, item.retain, item.identifiers, number, None, weight)
            if item.packet_id:
                session.inflight[item.packet_id] = restored
            else:
                queue.append(restored)
        session.queue = queue or None
        core.sessions[session.client_id] = session

    # ------------------------------------------------------------ steps

    def opened(self, session: Session) -> None:
        """The session is kept from now on, and its client is here."""
        journal = self.journal
        if journal is None:
            return
        fresh = not session.journal_id
        if fresh:
            self._session += 1
            session.journal_id = self._session
        journal.add(self._session_record(session))
        if fresh:
            for subscription in session.subscriptions.values():
                self.subscribed(session, subscription)

    def closed(self, session: Session) -> None:
        if self.journal is not None:
            self.journal.add(records.CLOSED.pack(b"s", session.journal_id))
        session.journal_id = 0

    def left(self, session: Session) -> None:
        if self.journal is not None:
            self.journal.add(records.LEFT.pack(b"L", session.journal_id, session.gone_at))

    def subscribed(self, session: Session, subscription: Subscription) -> None:
        if self.journal is not None:
            self.journal.add(_subscription_record(session.journal_id, subscription))

    def unsubscribed(self, session: Session, text: str) -> None:
        if self.journal is not None:
            raw = text.encode()
            self.journal.add(records.UNSUBSCRIBED.pack(b"u", session.journal_id, len(raw)), raw)

    def enqueued(self, session: Session, item: Item) -> None:
        journal = self.journal
        message, qos, retain, ids, number, _, _ = item
        assert journal is not None
        assert message is not None
        if message.generation != journal.generation:
            self._body(journal, message)
        journal.add(_enqueued(b"Q", session.journal_id, number, message.number, qos | retain << 2, len(ids)))
        for identifier in ids:
            journal.add(records.IDENTIFIER.pack(identifier))

    def sent(self, session: Session, number: int, packet_id: int) -> None:
        if self.journal is not None:
            self.journal.add(records.SENT.pack(b"P", session.journal_id, number, packet_id))

    def received(self, session: Session, number: int, packet_id: int) -> None:
        if self.journal is not None:
            self.journal.add(records.SENT.pack(b"C", session.journal_id, number, packet_id))
            self._wake()

    def finished(self, session: Session, number: int) -> None:
        if self.journal is not None:
            self.journal.add(_finished(b"F", session.journal_id, number))
            self._wake()

    def unreleased(self, session: Session, packet_id: int) -> None:
        if self.journal is not None:
            self.journal.add(records.INBOUND.pack(b"I", session.journal_id, packet_id))

    def released(self, session: Session, packet_id: int) -> None:
        if self.journal is not None:
            self.journal.add(records.INBOUND.pack(b"i", session.journal_id, packet_id))

    def retained(self, message: Message) -> None:
        journal = self.journal
        if journal is None:
            return
        if message.generation != journal.generation:
            self._body(journal, message)
        journal.add(records.RETAINED.pack(b"R", message.number))

    def unretained(self, topic: bytes) -> None:
        if self.journal is not None:
            self.journal.add(records.UNRETAINED.pack(b"r", len(topic)), topic)

    def _wake(self) -> None:
        """An acknowledgement is answered by nothing, so nobody else may end this turn."""
        if self._core is not None:
            self._core.schedule_commit()

    def _body(self, journal: Journal, message: Message) -> None:
        if not message.number:
            self._message += 1
            message.number = self._message
        message.generation = journal.generation
        journal.add(_message_head(message), message.coded, message.forward, message.payload)

    # ------------------------------------------------------------ the end of a turn

    def commit(self) -> bool:
        journal = self.journal
        if journal is None:
            return True
        if not journal.commit():
            return False
        if journal.size > self._floor and self._slices is None and journal.size > self._retry_above:
            self._maybe_shorten(journal)
        return True

    def _maybe_shorten(self, journal: Journal) -> None:
        if journal.size < self._floor + journal.snapshot_size // 2:
            return
        self._retry_above = journal.size + self._floor
        self._shorten()

    def _shorten(self) -> None:
        """Begin a snapshot."""
        journal, core = self.journal, self._core
        self._timer = None
        if journal is not None and core is not None and self._slices is None and journal.begin_snapshot():
            self._slices = self._snapshot(core)
            self._timer = core.loop.call_later(PAUSE_S, self._slice)

    def _slice(self) -> None:
        """Write one slice of the snapshot."""
        journal, slices, core = self.journal, self._slices, self._core
        assert journal is not None
        assert slices is not None
        assert core is not None
        self._timer = None
        parts: list[bytes] = []
        size = 0
        done = False
        while size < SLICE:
            part = next(slices, None)
            if part is None:
                done = True
                break
            parts.append(part)
            size += len(part)
        if parts and not journal.write_snapshot(b"".join(parts)):
            self._slices = None
            return
        if done:
            journal.finish_snapshot()
            self._slices = None
            self._retry_above = 0
            self.snapshots += 1
        else:
            self._timer = core.loop.call_later(PAUSE_S, self._slice)

    def _snapshot(self, core: Core) -> Iterator[bytes]:
        """Everything alive, in records; between two of them the broker works on."""
        written: set[int] = set()
        for topic in core.retained.topics():
            message = core.retained.get(topic)
            if message is None or topic.startswith(b"$"):
                continue
            yield from self._once(message, written)
            yield records.RETAINED.pack(b"R", message.number)
        for session in list(core.sessions.values()):
            if session.journal_id:
                yield from self._session_records(session, written)

    def _session_records(self, session: Session, written: set[int]) -> Iterator[bytes]:
        sid = session.journal_id
        head = [self._session_record(session)]
        head += [_subscription_record(sid, one) for one in session.subscriptions.values()]
        head += [records.INBOUND.pack(b"I", sid, packet_id) for packet_id in session.unreleased or ()]
        inflight = list(session.inflight.items())
        queue = list(session.queue or ())
        yield b"".join(head)
        for packet_id, item in inflight:
            message, qos, _, _, number, _, _ = item
            if message is None:
                yield records.SENT.pack(b"C", sid, number, packet_id)
                continue
            yield from self._once(message, written)
            yield _item_record(sid, item)
            if qos == 2:
                yield records.SENT.pack(b"P", sid, number, packet_id)
        for item in queue:
            if item[0] is not None:
                yield from self._once(item[0], written)
                yield _item_record(sid, item)

    def _once(self, message: Message, written: set[int]) -> Iterator[bytes]:
        if not message.number:
            self._message += 1
            message.number = self._message
        if message.number not in written:
            written.add(message.number)
            yield b"".join((_message_head(message), message.coded, message.forward, message.payload))

    @staticmethod
    def _session_record(session: Session) -> bytes:
        client_id, proven = session.client_id.encode(), session.proven.encode()
        gone_at = 0.0 if session.online else session.gone_at
        head = records.SESSION.pack(
            b"S", session.journal_id, session.expiry, gone_at, session.number, len(client_id), len(proven)
        )
        return head + client_id + proven

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slices = None
        if self.journal is not None:
            self.journal.close()


def _message_head(message: Message) -> bytes:
    return records.MESSAGE.pack(
        b"M",
        message.number,
        message.qos,
        -1.0 if message.expires is None else message.expires,
        len(message.coded),
        len(message.forward),
        len(message.payload),
    )


def _subscription_record(sid: int, subscription: Subscription) -> bytes:
    request = Request(subscription.text, subscription.qos, subscription.no_local, subscription.retain_as_published)
    raw = subscription.text.encode()
    return records.SUBSCRIBED.pack(b"U", sid, request.options, subscription.identifier or 0, len(raw)) + raw


def _item_record(sid: int, item: Item) -> bytes:
    message, qos, retain, ids, number, _, _ = item
    assert message is not None
    head = _enqueued(b"Q", sid, number, message.number, qos | retain << 2, len(ids))
    return head + b"".join(records.IDENTIFIER.pack(one) for one in ids)
