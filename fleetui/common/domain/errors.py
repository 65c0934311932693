"""The tree of errors.

::

    FleetError
    ├── OperatorError           the world is not as it should be; says so in one sentence, and what to do
    │   ├── ConfigError         a setting, an argument or a file's content
    │   ├── FilterError         a filter that does not parse; knows where
    │   ├── LinkError           broker, network, TLS
    │   ├── StoreError          database: locked, full, corrupt, newer than this program
    │   ├── AccessError         a key, certificate or role that does not allow it
    │   └── ProcessError        a child process that would not start or stay up
    ├── WireError               a message from outside that is refused: has a reason, is counted
    └── BugError                cannot happen; if it does, it is ours

An operator's error is answered with ``exit 1`` on the command line and a notification in the desk. Anything
outside this tree that reaches the top is a bug and is reported as one.
"""

from __future__ import annotations

from enum import StrEnum


class FleetError(Exception):
    """Root of everything that is raised on purpose."""


class OperatorError(FleetError):
    """The environment is at fault: ``sentence`` says what, ``fix`` says what to do about it."""

    def __init__(self, sentence: str, fix: str = "") -> None:
        super().__init__(sentence, fix)
        self.sentence = sentence.rstrip(".")
        self.fix = fix.rstrip(".")

    def __str__(self) -> str:
        end = "" if self.fix.endswith("?") else "."
        return f"{self.sentence}. {self.fix}{end}" if self.fix else f"{self.sentence}."


class ConfigError(OperatorError):
    pass


class FilterError(OperatorError):
    """``position`` and ``length`` mark the offending part of the text."""

    def __init__(self, sentence: str, fix: str = "", position: int = 0, length: int = 0) -> None:
        super().__init__(sentence, fix)
        self.position = position
        self.length = length


class LinkError(OperatorError):
    pass


class StoreError(OperatorError):
    pass


class AccessError(OperatorError):
    pass


class ProcessError(OperatorError):
    pass


class Refusal(StrEnum):
    """Why a message was refused. The words are stored and shown; do not rename."""

    TOPIC = "topic"  # not a topic of ours, or not one a device may write
    OVERSIZED = "oversized"
    UNDECODABLE = "undecodable"  # not MessagePack, or not the struct it should be
    SCHEMA = "schema"  # a schema version this program does not know
    RANGE = "range"  # a number or text outside its limits
    FORGED = "forged"  # says it is another device than the topic does
    UNKNOWN_DEVICE = "unknown_device"  # rejected or decommissioned
    STALE = "stale"  # older than what is known, by more than reordering explains
    RATE = "rate"  # more than the device may send


class WireError(FleetError):
    """A message that is refused. Raised by the codec, caught by ingest: counted, sampled, never fatal."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class BugError(FleetError):
    """A contradiction in our own code."""
