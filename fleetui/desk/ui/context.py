"""What every page is given: the desk's logic in one hand, and what a page is.

A page asks the :class:`DeskContext` for everything and imports no other page. It does no work of its own: the
context only carries references and two signals. Everything here lives on the main thread; what other threads
have to say arrives through ``bridge.py``, which emits ``changed`` once per delivery of the feed, *after*
``table`` holds the new rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

if TYPE_CHECKING:
    from fleetui.common.domain.clock import Clock
    from fleetui.desk.app.columns import DeviceTable
    from fleetui.desk.app.commands import Command, CommandRegistry
    from fleetui.desk.app.instance import Instance
    from fleetui.desk.app.notices import NoticeCentre
    from fleetui.desk.app.operations import Operations
    from fleetui.desk.app.settings import Settings
    from fleetui.desk.app.wishes import WishDesk
    from fleetui.desk.ui.theme import Theme
    from fleetui.store.records import Changes, EventRow, SavedView, StationStatus
    from fleetui.store.store import Store


EVENTS_KEPT = 300


class DeskContext(QObject):
    """References to the desk's parts, and the signals that pages listen to.

    ``changed(Changes)``
        Once per delivery of the feed, at most four times a second, after ``table`` was updated.
    ``ticked()``
        Once a second: ages shown as text ("3 min ago") are due for a new look.
    ``navigated(str, dict)``
        Somebody asks for another page; the main window answers it. Use :meth:`navigate`.
    ``hinted(str)``
        A short word for the status bar that goes by itself ("Copied"). Use :meth:`hint`.

    ``events`` are the newest that the feed brought, newest first.
    ``caught_up`` says whether everything that is in the store is shown: before, an empty table means nothing.
    """

    changed = Signal(object)
    ticked = Signal()
    navigated = Signal(str, object)
    hinted = Signal(str)

    def __init__(
        self,
        *,
        settings: Settings,
        commands: CommandRegistry,
        operations: Operations,
        table: DeviceTable,
        store: Store,
        clock: Clock,
        notices: NoticeCentre,
        wishes: WishDesk | Callable[[], WishDesk],
        instance: Instance | None,
        theme: Theme,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.settings = settings
        self.commands = commands
        self.operations = operations
        self.table = table
        self.store = store
        self.clock = clock
        self.notices = notices
        self._wishes = wishes
        self.instance = instance
        self.theme = theme
        self.caught_up = False
        self.views: dict[str, SavedView] = {}
        self.stations: dict[str, StationStatus] = {}
        self.events: list[EventRow] = []

    @property
    def wishes(self) -> WishDesk:
        """Where wishes are asked for; made when it is first needed, since it brings the database library along."""
        if callable(self._wishes):
            self._wishes = self._wishes()
        return self._wishes

    def take(self, changes: Changes) -> None:
        """One delivery of the feed: the table is brought up to date, then everybody is told. Main thread."""
        self.table.apply(changes)
        for identity in changes.views_removed:
            self.views.pop(identity, None)
        self.views.update((view.id, view) for view in changes.views)
        if changes.events:
            self.events = sorted([*changes.events, *self.events], key=lambda e: (-e.at, -e.id))[:EVENTS_KEPT]
        self.stations.update((status.station, status) for status in changes.stations)
        self.changed.emit(changes)

    @property
    def station(self) -> StationStatus | None:
        """What the station that was heard of last says of itself; a leading one before others."""
        return max(self.stations.values(), key=lambda status: (status.at, status.leader), default=None)

    def hint(self, text: str) -> None:
        self.hinted.emit(text)

    def navigate(self, page_id: str, **where: Any) -> None:
        """Show another page. ``where`` goes to its ``enter``: ``filter=…`` and ``device=…`` on Devices, say."""
        self.navigated.emit(page_id, where)


class Page(QWidget):
    """One entry of the navigation rail.

    Made on first visit and kept. A page may build its widgets in ``__init__``; it must not read the store
    there. Between :meth:`leave` and :meth:`enter` it is hidden and should not repaint or query on ``changed``,
    only remember that something did.
    """

    page_id: str = ""
    icon_name: str = ""

    def __init__(self, context: DeskContext, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self.setObjectName(f"page-{self.page_id}")
        self.setAccessibleName(self.title)

    @property
    def title(self) -> str:
        """The page's name as it stands in the header and the rail, in the user's language."""
        raise NotImplementedError

    def commands(self) -> Iterable[Command]:
        """What can be done on this page; in the palette and the shortcut sheet while it is shown."""
        return ()

    def enter(self, **where: Any) -> None:
        """The page is shown, with what :meth:`DeskContext.navigate` was given."""

    def leave(self) -> None:
        """Another page is shown now."""
