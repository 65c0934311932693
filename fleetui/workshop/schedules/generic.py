"""The last rule of the table: takes every group that no special rule took.

It only shares out: each family of operators has a module that knows how to lower it.
"""

from __future__ import annotations

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import injective, norm, order, plain, reduction, rows, upconv, window
from fleetui.workshop.schedules.rules import Context, Rule

FAST = (window, reduction, norm, rows, order, upconv)
"""What they do not take is computed in plain loops."""


class Generic:
    name = "generic"

    def matches(self, group: Group, context: Context) -> bool:
        return True

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        if injective.takes(group):
            return injective.lower(group, context)
        for module in FAST:
            if module.takes(group, context):
                return module.lower(group, context)
        if plain.takes(group):
            return plain.lower(group, context)
        raise UnsupportedError(f"{group.anchor.op} cannot be computed here")


RULES: list[Rule] = [Generic()]
