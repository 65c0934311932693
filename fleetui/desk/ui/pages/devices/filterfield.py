"""The line in which a filter is typed: offers what may come next, applies what is whole, marks what is wrong.

A filter takes effect while it is typed, as soon as it parses. One that does not yet leaves the last one in force;
what is wrong with it is underlined and said only after a pause, or on Enter. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PySide6.QtCore import (
    QAbstractListModel,
    QCoreApplication,
    QEvent,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QSize,
    Qt,
    QTimer,
    Signal,
    Slot,
)
from PySide6.QtGui import (
    QAction,
    QFocusEvent,
    QFontMetrics,
    QInputMethodEvent,
    QKeyEvent,
    QPainter,
    QTextCharFormat,
)
from PySide6.QtWidgets import (
    QCompleter,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QToolButton,
)

from fleetui.common.domain.filters import (
    DEVICES,
    Completion,
    Filter,
    FilterError,
    Suggestion,
    Suggests,
    complete,
    parse,
)
from fleetui.desk.ui.theme import Theme, repolish
from fleetui.desk.ui.widgets.basic import named

SOON_MS = 120  # after a key, until the table follows
LATER_MS = 700  # the same in the middle of a field's name, which as a word would be looked for in vain
PATIENCE_MS = 900  # until an unfinished filter is called wrong
_NONE = QModelIndex()


class _Offers(QAbstractListModel):
    """What may come next, as a list."""

    HELP = Qt.ItemDataRole.UserRole + 1

    def __init__(self) -> None:
        super().__init__()
        self.items: tuple[Suggestion, ...] = ()

    def show(self, items: tuple[Suggestion, ...]) -> None:
        self.beginResetModel()
        self.items = items
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = _NONE) -> int:
        return 0 if parent.isValid() else len(self.items)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if not index.isValid() or index.row() >= len(self.items):
            return None
        item = self.items[index.row()]
        if role in {Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole}:
            return item.label
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{item.label}, {item.help}"
        return item.help if role == self.HELP else None


class _OfferDelegate(QStyledItemDelegate):
    """A suggestion on the left, what it means on the right."""

    def __init__(self, theme: Theme, parent: QListView) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(320, 28)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        theme = self._theme
        rect: QRect = option.rect
        if option.state & (QStyle.StateFlag.State_Selected | QStyle.StateFlag.State_MouseOver):
            painter.fillRect(rect, theme.soft("accent", 0.14, "raised"))
        inside = rect.adjusted(10, 0, -10, 0)
        font = theme.font("body")
        label = str(index.data() or "")
        painter.setFont(font)
        painter.setPen(theme.color("text"))
        side = Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
        painter.drawText(inside, Qt.AlignmentFlag.AlignLeft | side, label)
        room = inside.width() - QFontMetrics(font).horizontalAdvance(label) - 24
        small = theme.font("small")
        painter.setFont(small)
        painter.setPen(theme.color("faint"))
        help_ = QFontMetrics(small).elidedText(
            str(index.data(_Offers.HELP) or ""), Qt.TextElideMode.ElideRight, room
        )
        if room > 40:
            painter.drawText(inside, Qt.AlignmentFlag.AlignRight | side, help_)


class FilterField(QLineEdit):
    """``changed(Filter)`` when another whole filter stands in it; ``wrong(sentence)`` (empty: all is well)."""

    changed = Signal(object)
    wrong = Signal(str)
    left = Signal()  # Down or Enter: on to the table

    def __init__(self, theme: Theme, values: Callable[[str], Iterable[str]]) -> None:
        super().__init__()
        self._theme, self._values = theme, values
        self._filter = parse("")
        self._completion = Completion(0, 0, ())
        named(self, self.tr("Filter devices"), self.tr("site:berlin and status:offline, for example"))
        self.setPlaceholderText(self.tr("Filter: a word, or status:offline, memory>80%, site:berlin …"))
        self._glass = QAction(self)
        self.addAction(self._glass, QLineEdit.ActionPosition.LeadingPosition)
        self._cross = QAction(self)
        self._cross.setText(self.tr("Clear the filter"))
        self._cross.setVisible(False)
        self._cross.triggered.connect(self.clear_filter)
        self.addAction(self._cross, QLineEdit.ActionPosition.TrailingPosition)
        for button in self.findChildren(QToolButton):
            named(button, self.tr("Clear the filter"))
        self._offers = _Offers()
        self._completer = QCompleter(self._offers, self)
        self._completer.setWidget(self)
        self._completer.setCompletionMode(QCompleter.CompletionMode.UnfilteredPopupCompletion)
        popup = QListView()
        popup.setObjectName("offers")
        popup.setMouseTracking(True)
        popup.setUniformItemSizes(True)
        popup.setAccessibleName(self.tr("Suggestions"))
        self._completer.setPopup(popup)
        # The completer puts a delegate of its own in when it takes the popup.
        popup.setItemDelegate(_OfferDelegate(theme, popup))
        self._completer.setMaxVisibleItems(10)
        self._completer.activated[QModelIndex].connect(self._take_offer)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.timeout.connect(self._apply)
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PATIENCE_MS)
        self._patience.timeout.connect(self._judge)
        self.textEdited.connect(self._edited)
        self.textChanged.connect(self._text_changed)
        self.returnPressed.connect(self._entered)
        theme.changed.connect(self._retint)
        self._retint()

    @Slot()
    def _retint(self) -> None:
        self._glass.setIcon(self._theme.icon("filter", "faint"))
        self._cross.setIcon(self._theme.icon("close", "muted", 14))

    # ------------------------------------------------------------ the filter

    @property
    def filter(self) -> Filter:
        """The last whole filter: what is in force."""
        return self._filter

    def set_filter(self, wanted: Filter) -> None:
        """Shows and applies a filter that did not come from typing."""
        self._soon.stop()
        self._patience.stop()
        self._popup_gone()
        self.setText(wanted.text)
        self._apply()

    @Slot()
    def clear_filter(self) -> None:
        self.set_filter(parse(""))

    @Slot(str)
    def _text_changed(self, text: str) -> None:
        self._cross.setVisible(bool(text))
        self._mark(None)

    @Slot(str)
    def _edited(self, _text: str) -> None:
        self._patience.start()
        self._offer()
        typed = self.text()[self._completion.start : self.cursorPosition()].casefold()
        naming = typed and any(
            offer.kind is Suggests.FIELD and offer.text.casefold().startswith(typed) for offer in self.offers
        )
        self._soon.start(LATER_MS if naming else SOON_MS)

    @Slot()
    def _apply(self) -> None:
        try:
            found = parse(self.text())
        except FilterError:
            return
        self._patience.stop()
        self._mark(None)
        if found != self._filter or found.text != self._filter.text:
            self._filter = found
            self.changed.emit(found)

    @Slot()
    def _judge(self) -> None:
        """Says what is wrong, if something is; not while there are suggestions that would mend it."""
        if self._completer.popup().isVisible():
            self._patience.start()
            return
        try:
            parse(self.text())
        except FilterError as error:
            self._mark(error)

    def _mark(self, error: FilterError | None) -> None:
        """Underlines the offending part; None: nothing is wrong."""
        if bool(self.property("wrong")) != (error is not None):
            self.setProperty("wrong", error is not None)
            repolish(self)
        attributes = []
        if error is not None:
            look = QTextCharFormat()
            look.setUnderlineStyle(QTextCharFormat.UnderlineStyle.WaveUnderline)
            look.setUnderlineColor(self._theme.color("bad"))
            start = min(error.position, max(0, len(self.text()) - 1))
            length = max(1, min(error.length, len(self.text()) - start))
            kind = QInputMethodEvent.AttributeType.TextFormat
            attributes.append(QInputMethodEvent.Attribute(kind, start - self.cursorPosition(), length, look))
        QCoreApplication.sendEvent(self, QInputMethodEvent("", attributes))
        self.wrong.emit(str(error) if error is not None else "")

    @Slot()
    def _entered(self) -> None:
        self._popup_gone()
        self._soon.stop()
        self._apply()
        self._judge()
        if not self.property("wrong"):
            self.left.emit()

    # ------------------------------------------------------------ suggestions

    def _offer(self) -> None:
        self._completion = complete(self.text(), self.cursorPosition(), DEVICES, self._values)
        items = self._completion.items
        typed = self.text()[self._completion.start : self.cursorPosition()]
        # Behind a whole word with nothing typed after it, a list would only be in the way.
        wanted = bool(items) and (bool(typed) or self.text().rstrip().endswith((":", "(", ",")) or not self.text())
        if not wanted or (len(items) == 1 and items[0].text == typed):
            self._popup_gone()
            return
        self._offers.show(items)
        popup = self._completer.popup()
        before = QFontMetrics(self.font()).horizontalAdvance(self.text()[: self._completion.start])
        x = min(before + 28, max(0, self.width() - 380))
        self._completer.complete(QRect(x, 0, 380, self.height() + 2))
        # Nothing is chosen beforehand: Enter means what was typed, Tab takes the first offer.
        popup.setCurrentIndex(QModelIndex())

    @Slot(QModelIndex)
    def _take_offer(self, index: QModelIndex) -> None:
        # The completer hands out an index of its own model, whose rows are those of the offers.
        if not 0 <= index.row() < len(self._completion.items):
            return
        item = self._completion.items[index.row()]
        text, cursor = self._completion.apply(self.text(), item)
        if item.kind is Suggests.WORD and cursor == len(text):
            text, cursor = text + " ", cursor + 1
        self.setText(text)
        self.setCursorPosition(cursor)
        self._soon.start(SOON_MS)
        self._patience.start()
        if item.kind in {Suggests.FIELD, Suggests.OPERATOR}:
            QTimer.singleShot(0, self._offer_again)

    @Slot()
    def _offer_again(self) -> None:
        if self.hasFocus():
            self._offer()

    def _popup_gone(self) -> None:
        popup = self._completer.popup()
        if popup.isVisible():
            popup.hide()

    @property
    def offers(self) -> tuple[Suggestion, ...]:
        """What is offered now; empty while the list is closed."""
        return self._offers.items if self._completer.popup().isVisible() else ()

    # ------------------------------------------------------------ keys

    def event(self, event: QEvent) -> bool:
        if (
            event.type() == QEvent.Type.KeyPress
            and isinstance(event, QKeyEvent)
            and event.key() == Qt.Key.Key_Tab
            and self._completer.popup().isVisible()
        ):
            index = self._completer.popup().currentIndex()
            self._popup_gone()
            self._take_offer(index if index.isValid() else self._offers.index(0, 0))
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        popup = self._completer.popup()
        if popup.isVisible() and event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Escape}:
            if event.key() != Qt.Key.Key_Escape and popup.currentIndex().isValid():
                event.ignore()  # the completer takes it
                return
            self._popup_gone()
            if event.key() == Qt.Key.Key_Escape:
                return
        if event.key() == Qt.Key.Key_Escape and self.text():
            self.clear_filter()
            return
        if event.key() == Qt.Key.Key_Down and not popup.isVisible():
            if self.text():
                self.left.emit()
            else:
                self._offer()
            return
        if event.key() == Qt.Key.Key_Space and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._offer()
            return
        super().keyPressEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        if event.reason() != Qt.FocusReason.PopupFocusReason:
            self._soon.stop()
            self._apply()
            self._judge()
