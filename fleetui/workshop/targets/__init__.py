"""The catalogue of targets: ``find`` one by name, list them ``all``. Knows nothing of compiling."""

from fleetui.workshop.targets.catalogue import all_targets, find, linkable
from fleetui.workshop.targets.host import host

__all__ = ["all_targets", "find", "host", "linkable"]
