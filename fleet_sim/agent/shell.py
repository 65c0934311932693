"""The agent on a device: what carries out the core's effects over MQTT, on disk and with a real model.

Threads: the caller of :meth:`Shell.run` (the core, the model, the disk) and ``link`` (the connection). What the
link has to say goes through one queue to the first: an answer for each report on its way, changes of state, and at
most ``MOST_MESSAGES`` received messages at a time.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import zlib

import fleetui
from fleet_sim.agent import state
from fleet_sim.agent.config import AgentConfig, spread
from fleet_sim.agent.core import AgentCore
from fleet_sim.agent.events import (
    Acknowledged,
    AgentEvent,
    Connected,
    Disconnect,
    Disconnected,
    Happened,
    Log,
    Persist,
    Publish,
    Received,
    Refused,
    Started,
    Stopping,
    Subscribe,
    Tick,
    Vitals,
)
from fleet_sim.agent.journal import Journal, hold
from fleet_sim.agent.model import Mlp, running
from fleet_sim.agent.queue import ReportQueue
from fleet_sim.agent.serving import Sampler, SyntheticSource
from fleet_sim.agent.settings import AgentSettings
from fleet_sim.agent.vitals import VitalSigns
from fleetui.common.domain.clock import Clock
from fleetui.common.link import codec
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.messages import Gone
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.topics import Topics, Up
from fleetui.common.link.transport import LinkConfig, LinkState, LinkStatus, Message, Will

log = logging.getLogger("fleetui.agent")

WILL_DELAY_S = 3
SESSION_EXPIRY_S = 300
STATE_EVERY_S = 3.0
GOODBYE_WITHIN_S = 3.0  # for what is still to be sent, then as long again for the goodbye
LONGEST_WAIT_S = 1.0
MOST_MESSAGES = 64


class Shell:
    """One run of the agent. ``stop`` may be called from any thread and from a signal handler."""

    def __init__(self, settings: AgentSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        # Unbounded in type, bounded in fact: see the module's docstring. put() never blocks the link.
        self._events: queue.SimpleQueue[AgentEvent | None] = queue.SimpleQueue()
        self._messages = threading.BoundedSemaphore(MOST_MESSAGES)
        self._stop_asked = False
        self._finished = False
        self._give_up_at = float("inf")
        self._link = LinkStatus(LinkState.IDLE)
        self._link_since = clock.now()
        self._sent = self._acknowledged = self._refused = 0
        self._vitals = Vitals()
        self._next_state = 0.0
        self._problem = ""

    def stop(self) -> None:
        self._events.put(None)

    def run(self) -> None:
        """Until stopped. Raises ``OperatorError`` when it cannot begin."""
        settings = self._settings
        settings.access.check(settings.device)
        with hold(settings.data):
            journal = Journal(settings.data / "queue", settings.limits.bytes)
            saved = journal.open(settings.device)
            if saved.damaged or saved.unreadable:
                log.warning(
                    "The queue file had %s damaged bytes and %s unreadable reports", saved.damaged, saved.unreadable
                )
            waiting = ReportQueue(settings.limits)
            waiting.restore(saved.reports, saved.losses)
            loop = LinkLoop(self._clock, name="link")
            try:
                self._work(loop, journal, waiting)
            finally:
                loop.stop()
                journal.close()

    # ------------------------------------------------------------ the main thread

    def _work(self, loop: LinkLoop, journal: Journal, waiting: ReportQueue) -> None:
        settings, clock = self._settings, self._clock
        model = settings.model
        mlp = Mlp.from_seed(
            model.name,
            model.version,
            f"{settings.target}/fp32",
            seed=model.seed,
            features=model.features,
            hidden=model.hidden,
            classes=model.classes,
        )
        signs = VitalSigns(settings.data)
        boot = os.urandom(8).hex()
        seed = zlib.crc32(settings.device.encode())
        core = AgentCore(self._config(signs), boot, [running(mlp, model.handle)], queue=waiting, seed=seed)
        sampler = Sampler(
            model.handle,
            mlp,
            SyntheticSource(model.features, settings.source.seed),
            clock,
            rows_per_s=settings.source.rows_per_s,
            batch=settings.source.batch,
        )
        transport = self._transport(loop, boot)
        loop.start_thread()
        started = clock.now()
        self._step(core, transport, journal, Started("agent-start"))
        transport.start()
        while not self._finished:
            self._wait(core, transport, journal, sampler)
            self._look(core, transport, journal, sampler, signs)
            if clock.monotonic() >= self._next_state:
                self._next_state = clock.monotonic() + STATE_EVERY_S
                self._write_state(core, started)
        self._link = LinkStatus(LinkState.IDLE, "stopped")
        self._write_state(core, started)

    def _config(self, signs: VitalSigns) -> AgentConfig:
        settings, machine = self._settings, signs.machine()
        return AgentConfig(
            fleet=settings.fleet,
            device=settings.device,
            agent=fleetui.__version__,
            target=settings.target,
            site=settings.site,
            firmware=settings.firmware,
            name=settings.name,
            cores=machine.cores,
            memory_bytes=machine.memory_bytes,
            disk_bytes=machine.disk_bytes,
            tags=settings.tags,
            beat_s=settings.beat_s,
            window_s=settings.window_s,
            spread_s=spread(settings.window_s),
        )

    def _wait(self, core: AgentCore, transport: MqttTransport, journal: Journal, sampler: Sampler) -> None:
        """For an event or a deadline, whichever comes first; then for all the events that are there."""
        rate = max(self._clock.rate, 1e-6)
        until = max(0.0, (core.next_at - self._clock.now()) / rate)
        timeout = min(until, sampler.due_in(), LONGEST_WAIT_S)
        try:
            event = self._events.get(timeout=timeout) if timeout > 0 else self._events.get_nowait()
            while True:
                self._take(core, transport, journal, event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take(self, core: AgentCore, transport: MqttTransport, journal: Journal, event: AgentEvent | None) -> None:
        if event is None:
            if not self._stop_asked:
                self._stop_asked = True
                self._give_up_at = self._clock.monotonic() + GOODBYE_WITHIN_S
                self._step(core, transport, journal, Stopping())
            return
        if isinstance(event, Received):
            self._messages.release()
        elif isinstance(event, Acknowledged):
            self._acknowledged += 1
        elif isinstance(event, Refused):
            self._refused += 1
        self._step(core, transport, journal, event)

    def _look(
        self, core: AgentCore, transport: MqttTransport, journal: Journal, sampler: Sampler, signs: VitalSigns
    ) -> None:
        """What time alone makes due."""
        now = self._clock.now()
        inferred = None if self._stop_asked else sampler.run(now)
        if inferred is not None:
            self._step(core, transport, journal, inferred)
        if now >= core.beat_at:
            self._vitals = signs.read()
            self._step(core, transport, journal, Tick(self._vitals))
        elif now >= core.next_at:
            self._step(core, transport, journal, Tick())
        if self._clock.monotonic() >= self._give_up_at:
            if self._give_up_at < float("inf") and not self._problem:
                log.warning("Not everything could be sent in time; it stays in the queue")
            self._step(core, transport, journal, Stopping())  # goodbye now, whatever waits
            self._finished = self._finished or self._clock.monotonic() >= self._give_up_at + GOODBYE_WITHIN_S

    def _step(self, core: AgentCore, transport: MqttTransport, journal: Journal, event: AgentEvent) -> None:
        refused = []
        for effect in core.step(event, self._clock.now()):
            if isinstance(effect, Persist):
                self._persist(core, journal, effect)
            elif isinstance(effect, Publish):
                if not self._publish(transport, effect) and effect.token is not None:
                    refused.append(effect.token)
            elif isinstance(effect, Subscribe):
                transport.subscribe(effect.pattern)
            elif isinstance(effect, Log):
                log.log(effect.level, "%s", effect.text)
            elif isinstance(effect, Disconnect):
                self._finished = True
        for token in refused:
            self._step(core, transport, journal, Refused(token))

    def _persist(self, core: AgentCore, journal: Journal, change: Persist) -> None:
        journal.append(change, core.queue.snapshot)
        if journal.problem and journal.problem != self._problem:
            log.error("The queue cannot be saved: %s", journal.problem)
            text = f"The queue cannot be saved: {journal.problem}. Reports would not outlive a power cut."
            self._events.put(Happened("queue.not-saved", 3, ("disk",), text))
        elif self._problem and not journal.problem:
            log.info("The queue is saved again")
        self._problem = journal.problem

    def _publish(self, transport: MqttTransport, effect: Publish) -> bool:
        token = effect.token

        def done(ok: bool) -> None:  # noqa: FBT001 - the transport's signature
            if token is not None:
                self._events.put(Acknowledged(token) if ok else Refused(token))

        payload = codec.encode(effect.message)
        taken = transport.publish(effect.topic, payload, qos=effect.qos, on_done=None if token is None else done)
        self._sent += taken
        return taken

    def _write_state(self, core: AgentCore, started: float) -> None:
        settings, vitals, link = self._settings, self._vitals, self._link
        waiting = core.queue
        state.write(
            settings.data,
            state.AgentState(
                version=fleetui.__version__,
                pid=os.getpid(),
                fleet=settings.fleet,
                device=settings.device,
                broker=str(settings.access.address),
                boot=core.boot,
                started=started,
                at=self._clock.now(),
                link=link.state.value,
                link_reason=link.reason,
                link_since=self._link_since,
                sent=self._sent,
                acknowledged=self._acknowledged,
                refused=self._refused,
                queued=len(waiting),
                queued_bytes=waiting.bytes,
                dropped=waiting.dropped,
                merged=waiting.merged,
                rows=core.rows,
                errors=core.errors,
                model=f"{settings.model.name} {settings.model.version}",
                cpu=vitals.cpu,
                memory=vitals.memory,
                disk=vitals.disk,
                temperature=vitals.temperature,
                problem=self._problem,
            ),
        )

    # ------------------------------------------------------------ the link's thread

    def _transport(self, loop: LinkLoop, boot: str) -> MqttTransport:
        settings = self._settings
        gone = codec.encode(Gone(device=settings.device, boot=boot))
        config = settings.access.config(
            LinkConfig(
                settings.device,
                will=Will(Topics(settings.fleet).up(settings.device, Up.GONE), gone, qos=1, delay_s=WILL_DELAY_S),
                session_expiry_s=SESSION_EXPIRY_S,
                receive_maximum=16,
                queue_limit=settings.limits.inflight + 16,
            )
        )
        transport = MqttTransport(config, loop, rng=random.Random())
        transport.on_status = self._on_status
        transport.on_message = self._on_message
        return transport

    def _on_status(self, status: LinkStatus) -> None:
        before, self._link = self._link, status
        if (before.state is LinkState.ONLINE) != (status.state is LinkState.ONLINE):
            self._events.put(Connected() if status.state is LinkState.ONLINE else Disconnected())
        if before.state is not status.state:
            self._link_since = self._clock.now()
            level = logging.WARNING if status.state is LinkState.REFUSED else logging.INFO
            log.log(level, "Connection: %s%s", status.state, f" ({status.reason})" if status.reason else "")

    def _on_message(self, message: Message) -> None:
        if self._messages.acquire(blocking=False):
            self._events.put(Received(message.topic, message.payload))
        else:
            log.warning("Too many questions at once; one is not answered")
