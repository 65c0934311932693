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
from typing import Any

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

# ---------------------------------------------------------------- link: one connection to a broker


class LinkState(StrEnum):
    """Of one connection to a broker (``link.transport``)."""

    IDLE = "idle"  # not started, or stopped
    CONNECTING = "connecting"
    ONLINE = "online"
    WAITING = "waiting"  # before the next try
    REFUSED = "refused"  # the broker said no; tried again slowly


class LinkEvent(StrEnum):
    START = "start"
    STOP = "stop"
    CONNECTED = "connected"
    FAILED = "failed"  # no connection came about
    LOST = "lost"
    REFUSED = "refused"  # password, certificate, ban, taken over by another with the same name
    RETRY = "retry"  # the pause is over


# Lost and failed are the network's, refused is the broker's word: told apart, because only people mend the latter.
LINK: StateTable[LinkState, LinkEvent] = StateTable(
    "Link to a broker",
    LinkState.IDLE,
    {
        LinkState.IDLE: {LinkEvent.START: LinkState.CONNECTING},
        LinkState.CONNECTING: {
            LinkEvent.CONNECTED: LinkState.ONLINE,
            LinkEvent.FAILED: LinkState.WAITING,
            LinkEvent.REFUSED: LinkState.REFUSED,
            LinkEvent.STOP: LinkState.IDLE,
        },
        LinkState.ONLINE: {
            LinkEvent.LOST: LinkState.WAITING,
            LinkEvent.REFUSED: LinkState.REFUSED,
            LinkEvent.STOP: LinkState.IDLE,
        },
        LinkState.WAITING: {LinkEvent.RETRY: LinkState.CONNECTING, LinkEvent.STOP: LinkState.IDLE},
        LinkState.REFUSED: {LinkEvent.RETRY: LinkState.CONNECTING, LinkEvent.STOP: LinkState.IDLE},
    },
)

# ---------------------------------------------------------------- telemetry: one detector on one device or cohort


class Detector(StrEnum):
    """What a detector makes of the telemetry it is fed: drift, latency, errors."""

    LEARNING = "learning"  # too few windows to judge by
    NORMAL = "normal"
    WATCHING = "watching"  # evidence above half the threshold: shown, never notified
    FIRING = "firing"
    RECOVERING = "recovering"  # below the threshold, above a quarter of it
    NO_DATA = "no_data"
    STALE_BASELINE = "stale_baseline"  # what it compares with is not what runs


class DetectorEvent(StrEnum):
    """Named for where the evidence stands after a window, so that any of them may come after a gap."""

    LEARN = "learn"  # still, or again, too few windows
    CALM = "calm"  # below a quarter of the threshold; from watching: below half
    RISE = "rise"  # above half
    FIRE = "fire"  # at the threshold
    EASE = "ease"  # it fired, and is below the threshold, above a quarter
    SILENT = "silent"  # several windows in a row did not come
    OUTDATED = "outdated"  # another version runs than the baseline was made on
    FITS = "fits"  # the version of the baseline runs again: judged as after a gap
    REBASE = "rebase"  # a new baseline, by a person's word or with a new version


# Silence is no evidence: it neither resolves nor raises anything. The evidence is kept, and the first window after
# the gap says where it stands; a detector that fired comes back as firing or recovering, never straight as normal,
# unless its evidence is below a quarter.
DETECTOR: StateTable[Detector, DetectorEvent] = StateTable(
    "Telemetry: detector",
    Detector.LEARNING,
    {
        Detector.LEARNING: {
            DetectorEvent.CALM: Detector.NORMAL,
            DetectorEvent.SILENT: Detector.NO_DATA,
            DetectorEvent.OUTDATED: Detector.STALE_BASELINE,
            DetectorEvent.REBASE: Detector.LEARNING,
        },
        Detector.NORMAL: {
            DetectorEvent.RISE: Detector.WATCHING,
            DetectorEvent.FIRE: Detector.FIRING,
            DetectorEvent.SILENT: Detector.NO_DATA,
            DetectorEvent.OUTDATED: Detector.STALE_BASELINE,
            DetectorEvent.REBASE: Detector.LEARNING,
        },
        Detector.WATCHING: {
            DetectorEvent.CALM: Detector.NORMAL,
            DetectorEvent.FIRE: Detector.FIRING,
            DetectorEvent.SILENT: Detector.NO_DATA,
            DetectorEvent.OUTDATED: Detector.STALE_BASELINE,
            DetectorEvent.REBASE: Detector.LEARNING,
        },
        Detector.FIRING: {
            DetectorEvent.EASE: Detector.RECOVERING,
            DetectorEvent.CALM: Detector.NORMAL,
            DetectorEvent.SILENT: Detector.NO_DATA,
            DetectorEvent.OUTDATED: Detector.STALE_BASELINE,
            DetectorEvent.REBASE: Detector.LEARNING,
        },
        Detector.RECOVERING: {
            DetectorEvent.FIRE: Detector.FIRING,
            DetectorEvent.CALM: Detector.NORMAL,
            DetectorEvent.SILENT: Detector.NO_DATA,
            DetectorEvent.OUTDATED: Detector.STALE_BASELINE,
            DetectorEvent.REBASE: Detector.LEARNING,
        },
        Detector.NO_DATA: {
            DetectorEvent.LEARN: Detector.LEARNING,
            DetectorEvent.CALM: Detector.NORMAL,
            DetectorEvent.RISE: Detector.WATCHING,
            DetectorEvent.FIRE: Detector.FIRING,
            DetectorEvent.EASE: Detector.RECOVERING,
            DetectorEvent.OUTDATED: Detector.STALE_BASELINE,
            DetectorEvent.REBASE: Detector.LEARNING,
        },
        Detector.STALE_BASELINE: {
            DetectorEvent.REBASE: Detector.LEARNING,
            DetectorEvent.FITS: Detector.NO_DATA,
        },
    },
)

# ---------------------------------------------------------------- alert: an incident, and who minds it


class Incident(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"
    CLOSED = "closed"  # resolved for so long that the same cause would be a new incident


class IncidentEvent(StrEnum):
    RESOLVE = "resolve"  # by its detectors, or by a person with an outcome
    REOPEN = "reopen"  # the same cause again, soon: no new notification
    CLOSE = "close"


INCIDENT: StateTable[Incident, IncidentEvent] = StateTable(
    "Alert: incident",
    Incident.OPEN,
    {
        Incident.OPEN: {IncidentEvent.RESOLVE: Incident.RESOLVED},
        Incident.RESOLVED: {IncidentEvent.REOPEN: Incident.OPEN, IncidentEvent.CLOSE: Incident.CLOSED},
    },
)


class Attention(StrEnum):
    """The mark on an incident that says who minds it. Beside the state: a snoozed incident may still be open."""

    NEW = "new"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"


class AttentionEvent(StrEnum):
    ACKNOWLEDGE = "acknowledge"
    SNOOZE = "snooze"  # always with an end
    WAKE = "wake"  # the end has come, or it grew worse
    UNDO = "undo"


ATTENTION: StateTable[Attention, AttentionEvent] = StateTable(
    "Alert: attention",
    Attention.NEW,
    {
        Attention.NEW: {
            AttentionEvent.ACKNOWLEDGE: Attention.ACKNOWLEDGED,
            AttentionEvent.SNOOZE: Attention.SNOOZED,
        },
        Attention.ACKNOWLEDGED: {
            AttentionEvent.SNOOZE: Attention.SNOOZED,
            AttentionEvent.UNDO: Attention.NEW,
            AttentionEvent.WAKE: Attention.NEW,
        },
        Attention.SNOOZED: {
            AttentionEvent.WAKE: Attention.NEW,
            AttentionEvent.ACKNOWLEDGE: Attention.ACKNOWLEDGED,
            AttentionEvent.UNDO: Attention.NEW,
        },
    },
)

# ---------------------------------------------------------------- model: one version in the registry


class Stage(StrEnum):
    """How far a version has come."""

    DRAFT = "draft"  # may still change
    CANDIDATE = "candidate"  # sealed; waits for approval
    APPROVED = "approved"  # may be deployed
    DEPRECATED = "deprecated"  # runs where it runs; not deployed anew
    ARCHIVED = "archived"  # kept as a record; its blobs may be collected


class StageEvent(StrEnum):
    SUBMIT = "submit"
    SEND_BACK = "send_back"  # not approved: to be worked on
    APPROVE = "approve"  # the last signature that the environment asks for
    REVOKE = "revoke"  # an approval no longer holds: a key was lost, a proof was wrong
    DEPRECATE = "deprecate"
    REINSTATE = "reinstate"
    ARCHIVE = "archive"


STAGE: StateTable[Stage, StageEvent] = StateTable(
    "Model version",
    Stage.DRAFT,
    {
        Stage.DRAFT: {StageEvent.SUBMIT: Stage.CANDIDATE, StageEvent.ARCHIVE: Stage.ARCHIVED},
        Stage.CANDIDATE: {
            StageEvent.APPROVE: Stage.APPROVED,
            StageEvent.SEND_BACK: Stage.DRAFT,
            StageEvent.ARCHIVE: Stage.ARCHIVED,
        },
        Stage.APPROVED: {StageEvent.DEPRECATE: Stage.DEPRECATED, StageEvent.REVOKE: Stage.CANDIDATE},
        Stage.DEPRECATED: {StageEvent.REINSTATE: Stage.APPROVED, StageEvent.ARCHIVE: Stage.ARCHIVED},
    },
)

# ---------------------------------------------------------------- package: compile and packaging jobs


class Job(StrEnum):
    """Of a compile or packaging job; the words that users of SageMaker Neo know."""

    STARTING = "starting"  # asked for; no worker has it yet
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class JobEvent(StrEnum):
    CLAIM = "claim"  # a worker took it
    COMPLETE = "complete"
    FAIL = "fail"
    STOP = "stop"
    STOPPED = "stopped"  # nothing is left of it
    LOST = "lost"  # its worker died


# A job whose worker died goes back into the queue; how often before it fails is the supervisor's to count.
JOB: StateTable[Job, JobEvent] = StateTable(
    "Package: compile job",
    Job.STARTING,
    {
        Job.STARTING: {
            JobEvent.CLAIM: Job.IN_PROGRESS,
            JobEvent.FAIL: Job.FAILED,
            JobEvent.STOP: Job.STOPPED,
        },
        Job.IN_PROGRESS: {
            JobEvent.COMPLETE: Job.COMPLETED,
            JobEvent.FAIL: Job.FAILED,
            JobEvent.STOP: Job.STOPPING,
            JobEvent.LOST: Job.STARTING,
        },
        Job.STOPPING: {JobEvent.STOPPED: Job.STOPPED, JobEvent.LOST: Job.STOPPED},
    },
)

# ---------------------------------------------------------------- rollout: one attempt on one device


class Deployment(StrEnum):
    """How far a version is on a device. Agent, station and desk share it; each step is a crash-safe record."""

    QUEUED = "queued"
    ACCEPTED = "accepted"  # the device has the order, believes it and will do it
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    STAGED = "staged"  # lies in the free slot
    PREFLIGHT = "preflight"  # memory, disk, golden vectors
    SHADOW = "shadow"  # runs beside the old one, unheard
    ACTIVATING = "activating"
    PROBATION = "probation"  # serves; the old one lies ready
    READY = "ready"  # healthy; waits for the word to commit
    # ends
    COMMITTED = "committed"  # the only success: it served healthy inferences on that device
    ROLLED_BACK = "rolled_back"  # the old one serves again
    ROLLBACK_FAILED = "rollback_failed"
    FAILED_NO_CHANGE = "failed_no_change"  # the old one has served throughout
    REJECTED = "rejected"  # not for this device: signature, hardware, known bad; trying again would not help
    TIMED_OUT = "timed_out"  # the station heard no more of it
    CANCELLED = "cancelled"
    REMOVED = "removed"  # the device left the rollout
    ALREADY_INSTALLED = "already_installed"


class DeploymentEvent(StrEnum):
    # what the device reports
    ACCEPT = "accept"
    REJECT = "reject"
    SAME = "same"  # that very version serves already
    DOWNLOAD = "download"
    VERIFY = "verify"  # all blocks are there and are what was signed
    STAGE = "stage"
    TEST = "test"
    SHADOW = "shadow"
    ACTIVATE = "activate"
    ACTIVE = "active"  # the slot's pointer is turned
    HOLD = "hold"  # healthy, and the order says to wait
    COMMIT = "commit"
    FAIL = "fail"  # before anything was changed
    GO_BACK = "go_back"  # after: and the old one serves again
    STRANDED = "stranded"  # after: and the old one could not be brought back
    RESTART = "restart"  # power cut, crash, reboot: where a device goes on from
    # what the station decides
    CANCEL = "cancel"  # by a person, by a gate, or by a newer order
    REMOVE = "remove"
    EXPIRE = "expire"


_D, _E = Deployment, DeploymentEvent

# Before the swap nothing has changed on the device, so all that goes wrong ends without a change, and an order may
# be taken back at any moment.
_BEFORE_SWAP = {
    _E.FAIL: _D.FAILED_NO_CHANGE,
    _E.REJECT: _D.REJECTED,
    _E.CANCEL: _D.CANCELLED,
    _E.REMOVE: _D.REMOVED,
    _E.EXPIRE: _D.TIMED_OUT,
}
# After it there is something to undo. A cancelled order is undone. A device that leaves the rollout now finishes by
# itself: there is no half-way to leave it in.
_AFTER_SWAP = {
    _E.GO_BACK: _D.ROLLED_BACK,
    _E.STRANDED: _D.ROLLBACK_FAILED,
    _E.EXPIRE: _D.TIMED_OUT,
}

# RESTART says where a device goes on after its power came back. Steps that only read or that can be done twice are
# done again. A swap is one rename: done again, it changes nothing. A model that brings the agent down at each
# start is stopped by the boot-loop guard: it counts restarts and answers with FAIL before the swap, GO_BACK after.
#
# TIMED_OUT is the station's verdict on a silent device; the device may well go on and commit. The attempt keeps its
# end; what runs on the device is read from its reports, never concluded from an attempt.
DEPLOYMENT: StateTable[Deployment, DeploymentEvent] = StateTable(
    "Rollout: deployment on a device",
    Deployment.QUEUED,
    {
        _D.QUEUED: {
            _E.ACCEPT: _D.ACCEPTED,
            _E.SAME: _D.ALREADY_INSTALLED,
            _E.RESTART: _D.QUEUED,
            **_BEFORE_SWAP,
        },
        _D.ACCEPTED: {_E.DOWNLOAD: _D.DOWNLOADING, _E.RESTART: _D.ACCEPTED, **_BEFORE_SWAP},
        _D.DOWNLOADING: {_E.VERIFY: _D.VERIFIED, _E.RESTART: _D.DOWNLOADING, **_BEFORE_SWAP},
        _D.VERIFIED: {_E.STAGE: _D.STAGED, _E.RESTART: _D.VERIFIED, **_BEFORE_SWAP},
        _D.STAGED: {_E.TEST: _D.PREFLIGHT, _E.RESTART: _D.STAGED, **_BEFORE_SWAP},
        _D.PREFLIGHT: {
            _E.SHADOW: _D.SHADOW,
            _E.ACTIVATE: _D.ACTIVATING,
            _E.RESTART: _D.STAGED,
            **_BEFORE_SWAP,
        },
        _D.SHADOW: {_E.ACTIVATE: _D.ACTIVATING, _E.RESTART: _D.SHADOW, **_BEFORE_SWAP},
        _D.ACTIVATING: {
            _E.ACTIVE: _D.PROBATION,
            _E.FAIL: _D.FAILED_NO_CHANGE,
            _E.RESTART: _D.ACTIVATING,
            **_AFTER_SWAP,
        },
        _D.PROBATION: {
            _E.COMMIT: _D.COMMITTED,
            _E.HOLD: _D.READY,
            _E.CANCEL: _D.ROLLED_BACK,
            _E.RESTART: _D.PROBATION,
            **_AFTER_SWAP,
        },
        _D.READY: {
            _E.COMMIT: _D.COMMITTED,
            _E.CANCEL: _D.ROLLED_BACK,
            _E.RESTART: _D.READY,
            **_AFTER_SWAP,
        },
    },
)

# ---------------------------------------------------------------- rollout: the whole, and one wave of it


class Rollout(StrEnum):
    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    PLANNED = "planned"  # membership frozen; waits for its time or for a person
    RUNNING = "running"
    PAUSED = "paused"  # starts nothing new; what is under way goes on
    STOPPING = "stopping"  # takes back what has not begun, waits for the rest
    ROLLING_BACK = "rolling_back"
    FINISHED = "finished"  # every device has an end; how many succeeded, the figures say
    STOPPED = "stopped"  # by a person
    FAILED = "failed"  # by a gate, or because it could not go on
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"  # a later rollout has the word on these devices: history
    DISCARDED = "discarded"  # never begun


class RolloutEvent(StrEnum):
    PLAN = "plan"  # no approval is asked for
    SUBMIT = "submit"
    APPROVE = "approve"
    DENY = "deny"  # with a reason; may be changed and submitted again
    AMEND = "amend"  # approvals lapse
    DISCARD = "discard"
    START = "start"
    PAUSE = "pause"  # by a person or a gate
    RESUME = "resume"
    STOP = "stop"  # by a person, or by a gate: which, is a mark beside it
    SETTLED = "settled"  # a person's stop is carried out
    FAIL = "fail"  # a gate's stop is carried out, or nothing can go on
    ROLL_BACK = "roll_back"
    REVERTED = "reverted"
    FINISH = "finish"
    RETRY = "retry"  # the failed ones again, as new attempts in one more wave
    SUPERSEDE = "supersede"


ROLLOUT: StateTable[Rollout, RolloutEvent] = StateTable(
    "Rollout",
    Rollout.DRAFT,
    {
        Rollout.DRAFT: {
            RolloutEvent.PLAN: Rollout.PLANNED,
            RolloutEvent.SUBMIT: Rollout.AWAITING_APPROVAL,
            RolloutEvent.DISCARD: Rollout.DISCARDED,
        },
        Rollout.AWAITING_APPROVAL: {
            RolloutEvent.APPROVE: Rollout.PLANNED,
            RolloutEvent.DENY: Rollout.DRAFT,
            RolloutEvent.AMEND: Rollout.DRAFT,
            RolloutEvent.DISCARD: Rollout.DISCARDED,
        },
        Rollout.PLANNED: {
            RolloutEvent.START: Rollout.RUNNING,
            RolloutEvent.AMEND: Rollout.DRAFT,
            RolloutEvent.DISCARD: Rollout.DISCARDED,
        },
        Rollout.RUNNING: {
            RolloutEvent.PAUSE: Rollout.PAUSED,
            RolloutEvent.STOP: Rollout.STOPPING,
            RolloutEvent.ROLL_BACK: Rollout.ROLLING_BACK,
            RolloutEvent.FINISH: Rollout.FINISHED,
            RolloutEvent.FAIL: Rollout.FAILED,
        },
        Rollout.PAUSED: {
            RolloutEvent.RESUME: Rollout.RUNNING,
            RolloutEvent.STOP: Rollout.STOPPING,
            RolloutEvent.ROLL_BACK: Rollout.ROLLING_BACK,
        },
        Rollout.STOPPING: {
            RolloutEvent.SETTLED: Rollout.STOPPED,
            RolloutEvent.FAIL: Rollout.FAILED,
            RolloutEvent.ROLL_BACK: Rollout.ROLLING_BACK,
        },
        Rollout.ROLLING_BACK: {
            RolloutEvent.REVERTED: Rollout.ROLLED_BACK,
            RolloutEvent.STOP: Rollout.STOPPING,
            RolloutEvent.FAIL: Rollout.FAILED,
        },
        Rollout.FINISHED: {
            RolloutEvent.RETRY: Rollout.RUNNING,
            RolloutEvent.ROLL_BACK: Rollout.ROLLING_BACK,
            RolloutEvent.SUPERSEDE: Rollout.SUPERSEDED,
        },
        Rollout.STOPPED: {
            RolloutEvent.ROLL_BACK: Rollout.ROLLING_BACK,
            RolloutEvent.SUPERSEDE: Rollout.SUPERSEDED,
        },
        Rollout.FAILED: {
            RolloutEvent.RETRY: Rollout.RUNNING,
            RolloutEvent.ROLL_BACK: Rollout.ROLLING_BACK,
            RolloutEvent.SUPERSEDE: Rollout.SUPERSEDED,
        },
    },
)


class Wave(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    SOAKING = "soaking"  # enough have finished; watched before the gate decides
    PASSED = "passed"  # the gate let the next one go
    FAILED = "failed"  # the gate did not
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"
    STOPPED = "stopped"


class WaveEvent(StrEnum):
    OPEN = "open"
    ENOUGH = "enough"  # the least number has finished
    SHORT = "short"  # no longer: devices were deleted or are tried again
    GO_ON = "go_on"  # the gate's word
    FAIL = "fail"
    OVERRIDE = "override"  # a person's word against the gate's, signed
    RETRY = "retry"
    ROLL_BACK = "roll_back"
    REVERTED = "reverted"
    SKIP = "skip"
    STOP = "stop"


# A wave passes by its gate alone: that it has ended is no reason to go on. An empty wave opens, has enough at once
# (its denominator is nought and printed as such) and is judged like any other.
WAVE: StateTable[Wave, WaveEvent] = StateTable(
    "Rollout: wave",
    Wave.WAITING,
    {
        Wave.WAITING: {
            WaveEvent.OPEN: Wave.RUNNING,
            WaveEvent.SKIP: Wave.SKIPPED,
            WaveEvent.STOP: Wave.STOPPED,
        },
        Wave.RUNNING: {
            WaveEvent.ENOUGH: Wave.SOAKING,
            WaveEvent.FAIL: Wave.FAILED,
            WaveEvent.OVERRIDE: Wave.PASSED,
            WaveEvent.ROLL_BACK: Wave.ROLLING_BACK,
            WaveEvent.STOP: Wave.STOPPED,
        },
        Wave.SOAKING: {
            WaveEvent.GO_ON: Wave.PASSED,
            WaveEvent.FAIL: Wave.FAILED,
            WaveEvent.OVERRIDE: Wave.PASSED,
            WaveEvent.SHORT: Wave.RUNNING,
            WaveEvent.ROLL_BACK: Wave.ROLLING_BACK,
            WaveEvent.STOP: Wave.STOPPED,
        },
        Wave.PASSED: {WaveEvent.ROLL_BACK: Wave.ROLLING_BACK},
        Wave.FAILED: {
            WaveEvent.RETRY: Wave.RUNNING,
            WaveEvent.OVERRIDE: Wave.PASSED,
            WaveEvent.ROLL_BACK: Wave.ROLLING_BACK,
            WaveEvent.STOP: Wave.STOPPED,
        },
        Wave.STOPPED: {WaveEvent.ROLL_BACK: Wave.ROLLING_BACK},
        Wave.ROLLING_BACK: {WaveEvent.REVERTED: Wave.ROLLED_BACK},
    },
)

# ---------------------------------------------------------------- wish: what a person asks for


class WishState(StrEnum):
    """Of a row in which a person asks for something (``store.records.Wish``)."""

    ASKED = "asked"
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class WishEvent(StrEnum):
    TAKE = "take"
    DO = "do"
    FAIL = "fail"
    REFUSE = "refuse"  # signature, role, or the world has moved on
    WITHDRAW = "withdraw"  # by who asked, before it was taken


# A station that dies with a wish in hand leaves it taken; the next leader takes it again and carries it out anew:
# carrying out a wish twice must be carrying it out once.
WISH: StateTable[WishState, WishEvent] = StateTable(
    "Wish",
    WishState.ASKED,
    {
        WishState.ASKED: {
            WishEvent.TAKE: WishState.TAKEN,
            WishEvent.REFUSE: WishState.REFUSED,
            WishEvent.WITHDRAW: WishState.WITHDRAWN,
        },
        WishState.TAKEN: {
            WishEvent.TAKE: WishState.TAKEN,
            WishEvent.DO: WishState.DONE,
            WishEvent.FAIL: WishState.FAILED,
            WishEvent.REFUSE: WishState.REFUSED,
        },
    },
)

# ---------------------------------------------------------------- child process


class ChildState(StrEnum):
    """Of a process that another one of ours keeps running."""

    STOPPED = "stopped"
    STARTING = "starting"  # it lives, but has not said that it is ready
    RUNNING = "running"
    STOPPING = "stopping"  # was asked to end
    BACKING_OFF = "backing_off"  # ended by itself; will be started again
    FAILED = "failed"  # given up; somebody has to ask


class ChildEvent(StrEnum):
    START = "start"
    READY = "ready"
    STOP = "stop"
    EXIT = "exit"  # the process is gone
    RETRY = "retry"  # the pause is over
    GIVE_UP = "give_up"  # it ended once too often, or could not be started at all


CHILD: StateTable[ChildState, ChildEvent] = StateTable(
    "Child process",
    ChildState.STOPPED,
    {
        ChildState.STOPPED: {ChildEvent.START: ChildState.STARTING},
        ChildState.STARTING: {
            ChildEvent.READY: ChildState.RUNNING,
            ChildEvent.STOP: ChildState.STOPPING,
            ChildEvent.EXIT: ChildState.BACKING_OFF,
            ChildEvent.GIVE_UP: ChildState.FAILED,
        },
        ChildState.RUNNING: {
            ChildEvent.STOP: ChildState.STOPPING,
            ChildEvent.EXIT: ChildState.BACKING_OFF,
            ChildEvent.GIVE_UP: ChildState.FAILED,
        },
        ChildState.STOPPING: {ChildEvent.EXIT: ChildState.STOPPED},
        ChildState.BACKING_OFF: {
            ChildEvent.RETRY: ChildState.STARTING,
            ChildEvent.START: ChildState.STARTING,
            ChildEvent.STOP: ChildState.STOPPED,
            ChildEvent.GIVE_UP: ChildState.FAILED,
        },
        ChildState.FAILED: {ChildEvent.START: ChildState.STARTING, ChildEvent.STOP: ChildState.STOPPED},
    },
)

# ---------------------------------------------------------------- all of them

# Each with the events' type: what the documents and the tests go through.
TABLES: tuple[tuple[StateTable[Any, Any], type[StrEnum]], ...] = (
    (LIFECYCLE, LifecycleEvent),
    (PRESENCE, PresenceEvent),
    (LINK, LinkEvent),
    (DETECTOR, DetectorEvent),
    (INCIDENT, IncidentEvent),
    (ATTENTION, AttentionEvent),
    (STAGE, StageEvent),
    (JOB, JobEvent),
    (DEPLOYMENT, DeploymentEvent),
    (ROLLOUT, RolloutEvent),
    (WAVE, WaveEvent),
    (WISH, WishEvent),
    (CHILD, ChildEvent),
)
