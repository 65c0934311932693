"""The topic tree, in one place.

::

    fleet/<fleet>/up/<device>/<kind>      device -> station   birth beat win event ota capture reply gone
    fleet/<fleet>/down/<device>/<kind>    station -> device   desired (retained) ask
    fleet/<fleet>/trust/<file>            shared, read-only   signed metadata (retained)
    fleet/<fleet>/blob/<sha256>           shared, read-only   content-addressed chunks (retained)

A device writes only under its own ``up/`` and reads only its own ``down/``, ``trust/`` and ``blob/``; the
broker enforces it, whichever broker it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleetui.common.domain.errors import Refusal, WireError
from fleetui.common.domain.values import is_digest, is_id


class Up(StrEnum):
    """Kinds of report."""

    BIRTH = "birth"
    BEAT = "beat"
    WIN = "win"
    EVENT = "event"
    OTA = "ota"
    CAPTURE = "capture"
    REPLY = "reply"
    GONE = "gone"


class Down(StrEnum):
    """Kinds of order."""

    DESIRED = "desired"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one fleet."""

    fleet: str

    def up(self, device: str, kind: Up) -> str:
        return f"fleet/{self.fleet}/up/{device}/{kind}"

    def down(self, device: str, kind: Down) -> str:
        return f"fleet/{self.fleet}/down/{device}/{kind}"

    def trust(self, file: str) -> str:
        return f"fleet/{self.fleet}/trust/{file}"

    def blob(self, digest: str) -> str:
        if not is_digest(digest):
            raise ValueError(digest)
        return f"fleet/{self.fleet}/blob/{digest}"

    @property
    def all_up(self) -> str:
        """What a station subscribes to."""
        return f"fleet/{self.fleet}/up/+/+"

    def all_down(self, device: str) -> str:
        """What a device subscribes to."""
        return f"fleet/{self.fleet}/down/{device}/+"

    def parse_up(self, topic: str) -> tuple[str, Up]:
        """Device and kind of a report's topic. Raises :class:`WireError` for anything else."""
        parts = topic.split("/")
        if (
            len(parts) != 5
            or parts[0] != "fleet"
            or parts[1] != self.fleet
            or parts[2] != "up"
            or not is_id(parts[3])
        ):
            raise WireError(Refusal.TOPIC, topic[:120])
        try:
            return parts[3], Up(parts[4])
        except ValueError:
            raise WireError(Refusal.TOPIC, topic[:120]) from None

    def parse_down(self, topic: str) -> tuple[str, Down]:
        parts = topic.split("/")
        if len(parts) != 5 or parts[0] != "fleet" or parts[1] != self.fleet or parts[2] != "down":
            raise WireError(Refusal.TOPIC, topic[:120])
        try:
            return parts[3], Down(parts[4])
        except ValueError:
            raise WireError(Refusal.TOPIC, topic[:120]) from None


def topic_matches(pattern: str, topic: str) -> bool:
    """MQTT's matching of a topic by a filter; ``$`` topics are not matched by a leading wildcard."""
    wanted, given = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(given) or level not in {"+", given[i]}:
            return False
    return len(wanted) == len(given)
