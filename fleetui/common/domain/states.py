"""All state machines, in one file.

Theory
======

Rule 1: whatever affects which state follows which stands here. A caller keeps a state, hears of something, asks
``TABLE.next(state, event)``, and does as told; ``None`` means that this event means nothing in this state, and
nothing changes. Deciding *that* something happened (a threshold passed, a signature held) is the caller's part:
this file holds no numbers and reads no clock. ``presence.py`` is the one such decision that device, station and
tests share.

Rule 2: states and events are words. They are stored, sent and shown; renaming one is a migration.

Rule 3: an end is an end. States without a row take no event; trying again is a new machine (a new attempt, a new
incident, a new wish), so that history stays true. Where a thing may come back to life, that is no end and has a
row.

Rule 4: what is known of a thing beside its state is a *mark* beside the state, not another state: an incident
that somebody has acknowledged is still open.

The diagrams in ARCHITECTURE.md are made from these tables (``diagrams.py``); a test fails when they differ.
"""

from __future__ import annotations

from enum import StrEnum

from fleetui.common.domain.machine import StateTable

# ---------------------------------------------------------------- device: does it belong to the fleet?


class Lifecycle(StrEnum):
    """Whether a device belongs to the fleet."""

    PENDING = "pending"  # asked to join; nothing it sends is believed
    ACCEPTED = "accepted"
    REJECTED = "rejected"  # turned away; keeps its row, so that it cannot ask again as if new
    DECOMMISSIONED = "decommissioned"  # served its time; certificate revoked, history kept


class LifecycleEvent(StrEnum):
    ACCEPT = "accept"  # by a person, or by a pre-authorisation that a person signed
    REJECT = "reject"
    RECONSIDER = "reconsider"  # by a person: back into the queue
    DECOMMISSION = "decommission"
    ENROL = "enrol"  # the device asks again, with a new key


# A rejected device that enrols again stays rejected: only people reopen a case they closed. A decommissioned one
# may come back from the repair shop, but as a newcomer with a new certificate: it waits for acceptance again.
LIFECYCLE: StateTable[Lifecycle, LifecycleEvent] = StateTable(
    "Device: lifecycle",
    Lifecycle.PENDING,
    {
        Lifecycle.PENDING: {
            LifecycleEvent.ACCEPT: Lifecycle.ACCEPTED,
            LifecycleEvent.REJECT: Lifecycle.REJECTED,
            LifecycleEvent.ENROL: Lifecycle.PENDING,
        },
        Lifecycle.ACCEPTED: {
            LifecycleEvent.REJECT: Lifecycle.REJECTED,
            LifecycleEvent.DECOMMISSION: Lifecycle.DECOMMISSIONED,
        },
        Lifecycle.REJECTED: {
            LifecycleEvent.ACCEPT: Lifecycle.ACCEPTED,
            LifecycleEvent.RECONSIDER: Lifecycle.PENDING,
            LifecycleEvent.DECOMMISSION: Lifecycle.DECOMMISSIONED,
        },
        Lifecycle.DECOMMISSIONED: {
            LifecycleEvent.ENROL: Lifecycle.PENDING,
        },
    },
)

# ---------------------------------------------------------------- device: is it there?


class Presence(StrEnum):
    """Whether a device is heard of in time."""

    UNKNOWN = "unknown"  # never heard of
    ONLINE = "online"
    LATE = "late"  # a beat or two are missing
    OFFLINE = "offline"


class PresenceEvent(StrEnum):
    """What ``presence.PresenceRule`` makes of messages and silence."""

    HEARD = "heard"  # a first message
    STEADY = "steady"  # messages come regularly again
    BIRTH = "birth"  # it connected and introduced itself
    OVERDUE = "overdue"  # silent for longer than a lost beat explains
    EXPIRED = "expired"  # silent for too long
    WILL = "will"  # the broker saw the connection break, and the grace is over
    GOODBYE = "goodbye"  # it said so


# One message does not bring a late or offline device back: who reports now and then would flap.
PRESENCE: StateTable[Presence, PresenceEvent] = StateTable(
    "Device: presence",
    Presence.UNKNOWN,
    {
        Presence.UNKNOWN: {
            PresenceEvent.HEARD: Presence.ONLINE,
            PresenceEvent.BIRTH: Presence.ONLINE,
            PresenceEvent.WILL: Presence.OFFLINE,
            PresenceEvent.GOODBYE: Presence.OFFLINE,
        },
        Presence.ONLINE: {
            PresenceEvent.OVERDUE: Presence.LATE,
            PresenceEvent.EXPIRED: Presence.OFFLINE,
            PresenceEvent.WILL: Presence.OFFLINE,
            PresenceEvent.GOODBYE: Presence.OFFLINE,
        },
        Presence.LATE: {
            PresenceEvent.STEADY: Presence.ONLINE,
            PresenceEvent.BIRTH: Presence.ONLINE,
            PresenceEvent.EXPIRED: Presence.OFFLINE,
            PresenceEvent.WILL: Presence.OFFLINE,
            PresenceEvent.GOODBYE: Presence.OFFLINE,
        },
        Presence.OFFLINE: {
            PresenceEvent.STEADY: Presence.ONLINE,
            PresenceEvent.BIRTH: Presence.ONLINE,
        },
    },
)
