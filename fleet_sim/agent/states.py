"""The life of an agent core, as a table. What it does in each state stands in ``core.py``."""

from __future__ import annotations

from enum import StrEnum

from fleetui.common.domain.machine import StateTable


class Life(StrEnum):
    NEW = "new"
    OFFLINE = "offline"  # works, counts, queues
    ONLINE = "online"  # the same, and reports
    STOPPING = "stopping"  # online, sending what is left, counts nothing more
    STOPPED = "stopped"


class Turn(StrEnum):
    START = "start"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    STOP = "stop"
    DONE = "done"  # nothing is left to send


LIFE: StateTable[Life, Turn] = StateTable(
    "agent",
    Life.NEW,
    {
        Life.NEW: {Turn.START: Life.OFFLINE, Turn.STOP: Life.STOPPED},
        Life.OFFLINE: {Turn.CONNECT: Life.ONLINE, Turn.STOP: Life.STOPPED},
        Life.ONLINE: {Turn.DISCONNECT: Life.OFFLINE, Turn.STOP: Life.STOPPING},
        Life.STOPPING: {Turn.DISCONNECT: Life.STOPPED, Turn.DONE: Life.STOPPED},
    },
)
