r"""The one filter language: of cards, lists, saved views, bulk actions, rollout targets and alert scopes.

::

    site:berlin and status:offline and model.version<3
    memory>80% or latency.p99>20ms          not (site:(berlin,paris) or has:error.text)
    seen<5m temp>60 edge-1*                 tag.line:3 name:"press shop*"

Grammar::

    filter  = [ any ]                              the empty filter takes everything
    any     = all { "or" all }
    all     = one { [ "and" ] one }                "and" may be left out
    one     = "not" one | "(" any ")" | term
    term    = field op values | "has:" values | "missing:" values | value
    op      = ":" | "=" | "!=" | "~" | "<" | "<=" | ">" | ">="
    values  = value | "(" value { ("," | "or") value } ")"
    value   = word | '"' … '"'

``not`` binds closest, then ``and``, then ``or``. Names of fields, keywords and texts are compared without regard
to case. White space around operators does not matter. In quotes everything is allowed, with ``\"`` for a quote,
``\\`` for a backslash and ``\*`` for a star; a field's name may stand in quotes too (``"tag.my key":x``).

========  ==================================================================================================
``:``     is. In texts ``*`` stands for anything, in quotes or not: ``name:press*``. Without one it is the
          whole text that counts: ``site:ber`` does not take Berlin.
``=``     is exactly: a star is a star.
``!=``    the ``not`` of ``:``; of a list none may hold. It takes what has no value, too.
``~``     contains; texts and versions only.
``< >``   numbers, ages and versions (1.9 < 1.10, 1.0-rc1 < 1.0), tags (ordered like versions), ordered choices.
word      bare: contained in one of the search fields (devices: name, id, site); with ``*`` like the whole of it.
list      any of the values: ``site:(berlin,paris)``.
has:      the value is known. ``missing:`` it is not. Of a list of fields, one suffices.
========  ==================================================================================================

Numbers carry units: ``80%``, ``20ms``, ``512MB``, ``4GiB``, ``60°C``, ``5/min``, ``1.5k``. Without one they are
per cent, ms, bytes, °C, per second, as the tables show them; only lengths of time need theirs: ``5m``, ``1h30m``,
``2d``. An age (``seen``, ``uptime``) is how long ago a moment is: ``seen<5m`` was heard of in the last five
minutes. ``=`` on numbers allows for rounding in the ninth place and no more. Versions compare by
``values.version_key``, so ``model.version:1.0`` takes ``1.0.0``; with a wildcard they compare as texts.

**A comparison with a missing value is false, and its** ``not`` **is true.** So a filter and its ``not`` share all
rows between them, and ``not temp>60`` takes devices without a thermometer; add ``has:temp`` to leave them out.

The language knows no fields: a :class:`Catalogue` brings them. This package does no I/O, keeps no state and runs on
any thread; nothing but :class:`FilterError` comes of a text, however odd.
"""

from fleetui.common.domain.errors import FilterError
from fleetui.common.domain.filters.chips import Chip
from fleetui.common.domain.filters.complete import Completion, Suggestion, Suggests, complete
from fleetui.common.domain.filters.devices import DEVICES
from fleetui.common.domain.filters.evaluate import Column, Columns
from fleetui.common.domain.filters.fields import Catalogue, Field, Kind
from fleetui.common.domain.filters.filter import Filter
from fleetui.common.domain.filters.filter import parse as _parse
from fleetui.common.domain.filters.rules import DEVICE_RULES, FilterRule, Role, device_rule, rule
from fleetui.common.domain.filters.texts import Coded

__all__ = [
    "DEVICES",
    "DEVICE_RULES",
    "Catalogue",
    "Chip",
    "Coded",
    "Column",
    "Columns",
    "Completion",
    "Field",
    "Filter",
    "FilterError",
    "FilterRule",
    "Kind",
    "Role",
    "Suggestion",
    "Suggests",
    "complete",
    "device_rule",
    "parse",
    "rule",
]


def parse(text: str, catalogue: Catalogue = DEVICES) -> Filter:
    """The filter that ``text`` writes. Raises only :class:`FilterError`, which marks the place."""
    return _parse(text, catalogue)
