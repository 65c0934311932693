"""Devices and saved views for the palette; pages are commands already. Main thread only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fleetui.common.domain.filters import parse
from fleetui.desk.app.commands import Hit, match
from fleetui.desk.app.order import passing
from fleetui.desk.app.text import QT_TRANSLATE_NOOP
from fleetui.desk.ui.palette import translate

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext

SAVED_VIEW = QT_TRANSLATE_NOOP("Commands", "Saved view")
VIEW_WORD = "view"


class Finder:
    """A source of hits (``commands.HitSource``)."""

    LOOKED_AT = 400

    def __init__(self, context: DeskContext) -> None:
        self._context = context

    def search(self, text: str, limit: int) -> list[Hit]:
        hits = [*self._views(text), *self._devices(text)]
        hits.sort(key=lambda hit: -hit.score)
        return hits[:limit]

    def _views(self, text: str) -> Iterator[Hit]:
        context = self._context
        for view in context.views.values():
            found = match(text, view.name, (VIEW_WORD,))
            if found is not None:
                yield Hit(
                    found[0], f"view:{view.id}", view.name, translate(SAVED_VIEW), found[1],
                    run=lambda view=view: context.navigate(view.page, view=view.id),
                )  # fmt: skip

    def _devices(self, text: str) -> Iterator[Hit]:
        """By the filter language's search for bare words, which looks at columns, not at devices one by one."""
        context, table = self._context, self._context.table
        words = text.replace('"', " ").replace("\\", " ").split()
        if not words:
            return
        wanted = parse(" ".join(f'"{word}"' for word in words))
        for row in np.flatnonzero(passing(table, wanted, context.clock.now()))[: self.LOOKED_AT].tolist():
            device, site = table.device(row), table.text("site", row)
            title = table.text("name", row) or device
            found = match(text, title, (device, site))
            if found is not None:
                yield Hit(
                    found[0] - 4, f"device:{device}", title, f"{device}, {site}" if site else device, found[1],
                    run=lambda device=device: context.navigate("devices", device=device),
                )  # fmt: skip
