"""Saved views: a filter, columns and an order under a name, the same for everybody who shares the store.

They live in the store and arrive through the feed; saving and deleting are operations in the store's lane. Main
thread only, except the work of those operations.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.filters import FilterError, parse
from fleetui.desk.app.lazystore import ReadsAndWrites
from fleetui.desk.app.operations import Operation
from fleetui.desk.app.shown import FIRST, shown_columns
from fleetui.store import views as stored
from fleetui.store.records import Changes, SavedView

NAME_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Looks:
    """What a view keeps of a table: compare two to see whether anything was changed since."""

    filter: str = ""
    columns: tuple[str, ...] = FIRST
    sort: str = "id"
    descending: bool = False

    @classmethod
    def of(cls, view: SavedView) -> Looks:
        """A view's, with what this program no longer knows left out."""
        columns = tuple(column.name for column in shown_columns(view.columns))
        return cls(canonical(view.filter), columns, view.sort or "id", view.descending)


def canonical(text: str) -> str:
    """A filter as it is compared; one that does not parse (any more) stays as it is written."""
    try:
        return parse(text).canonical
    except FilterError:
        return text.strip()


class Views:
    """The views of one page, by name. ``on_changed`` is called when the list is another."""

    def __init__(self, page: str, operator: Callable[[], str]) -> None:
        """``operator`` is asked only when it matters: naming one may mean to make their key."""
        self.page = page
        self._operator = operator
        self._views: dict[str, SavedView] = {}
        self._watchers: list[Callable[[], None]] = []

    def take(self, changes: Changes) -> None:
        """What the feed brings."""
        changed = False
        for identity in changes.views_removed:
            changed |= self._views.pop(identity, None) is not None
        for view in changes.views:
            if view.page == self.page and (view.shared or view.owner == self._operator()):
                changed |= self._views.get(view.id) != view
                self._views[view.id] = view
            else:
                changed |= self._views.pop(view.id, None) is not None
        if changed:
            self._tell()

    def on_changed(self, watcher: Callable[[], None]) -> None:
        self._watchers.append(watcher)

    def _tell(self) -> None:
        for watcher in list(self._watchers):
            watcher()

    def all(self) -> list[SavedView]:
        return sorted(self._views.values(), key=lambda view: (view.name.casefold(), view.id))

    def get(self, identity: str) -> SavedView | None:
        return self._views.get(identity)

    def mine(self, view: SavedView) -> bool:
        return not view.owner or view.owner == self._operator()

    def check_name(self, name: str, besides: str = "") -> str:
        """The name, tidied; raises :class:`ConfigError` where it is empty, too long, or another view's."""
        tidy = " ".join(name.split())
        if not tidy:
            raise ConfigError("A view needs a name", "Write a few words")
        if len(tidy) > NAME_LENGTH:
            raise ConfigError("The name is too long", f"Use at most {NAME_LENGTH} characters")
        for view in self._views.values():
            if view.id != besides and view.name.casefold() == tidy.casefold():
                raise ConfigError(f"There is a view called “{view.name}” already", "Choose another name")
        return tidy

    def new(self, name: str, looks: Looks, *, shared: bool) -> SavedView:
        return SavedView(
            id=uuid.uuid4().hex,
            name=self.check_name(name),
            page=self.page,
            filter=looks.filter,
            columns=looks.columns,
            sort=looks.sort,
            descending=looks.descending,
            owner=self._operator(),
            shared=shared,
        )

    def renamed(self, view: SavedView, name: str) -> SavedView:
        return replace(view, name=self.check_name(name, besides=view.id))

    @staticmethod
    def updated(view: SavedView, looks: Looks) -> SavedView:
        return replace(
            view, filter=looks.filter, columns=looks.columns, sort=looks.sort, descending=looks.descending
        )

    def keep(self, view: SavedView) -> None:
        """Shows it at once; the feed will bring the stored one."""
        self._views[view.id] = view
        self._tell()

    def save(self, view: SavedView, store: ReadsAndWrites) -> Operation[int]:
        """The operation that writes it. Shown at once, and taken back where the store refuses."""
        before = self._views.get(view.id)
        self.keep(view)
        operation = Operation(
            f"Save view “{view.name}”", lambda: store.write(lambda c: stored.save(c, view))
        ).in_store()
        return operation.on_error(lambda error: self._back(view.id, before, error))

    def delete(self, view: SavedView, store: ReadsAndWrites) -> Operation[bool]:
        self._views.pop(view.id, None)
        self._tell()
        operation = Operation(
            f"Delete view “{view.name}”", lambda: store.write(lambda c: stored.delete(c, view.id))
        ).in_store()
        return operation.on_error(lambda error: self._back(view.id, view, error))

    def _back(self, identity: str, before: SavedView | None, error: Exception) -> None:
        if before is None:
            self._views.pop(identity, None)
        else:
            self._views[identity] = before
        self._tell()
        raise error  # to whoever hears of unhandled errors: the notification centre
