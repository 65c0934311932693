"""A panel over the main window: the palette, the shortcut sheet, the notification drawer.

The overlay covers its window with a veil, keeps Tab inside its panel, closes with Esc or a click beside the
panel, and gives the focus back to where it was. It is a child of the window, not a window: it moves, scales and
is photographed with it. Main thread only.
"""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QRect, Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QFrame, QWidget

from fleetui.desk.ui.theme import Theme


class Overlay(QWidget):
    """Make a subclass, put things into ``panel``, say in :meth:`place` where the panel goes."""

    closed = Signal()

    def __init__(self, window: QWidget, theme: Theme, panel_name: str, *, veil: float = 0.28) -> None:
        super().__init__(window)
        self.theme = theme
        self._veil = veil
        self._before: QWidget | None = None
        self.panel = QFrame(self)
        self.panel.setObjectName(panel_name)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.hide()
        window.installEventFilter(self)
        theme.changed.connect(self._redraw)

    def place(self, room: QRect) -> QRect:
        """The panel's rectangle within ``room``."""
        raise NotImplementedError

    def first_focus(self) -> QWidget:
        """What has the focus when the overlay opens."""
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        return self.isVisible()

    def open(self) -> None:
        if not self.isVisible():
            self._before = QApplication.focusWidget()
        self._arrange()
        self.show()
        self.raise_()
        self.first_focus().setFocus(Qt.FocusReason.PopupFocusReason)

    def dismiss(self) -> None:
        if not self.isVisible():
            return
        # Before the overlay hides, or Qt gives the focus to the next widget in the chain first.
        before, self._before = self._before, None
        if before is not None and before.isVisible() and not self.isAncestorOf(before):
            before.setFocus(Qt.FocusReason.PopupFocusReason)
        self.hide()
        self.closed.emit()

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def _arrange(self) -> None:
        room = self.parentWidget().rect()
        self.setGeometry(room)
        self.panel.setGeometry(self.place(room))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize and watched is self.parent() and self.isVisible():
            self._arrange()
        return False

    def focusNextPrevChild(self, forward: bool) -> bool:
        """Tab goes round inside the panel."""
        stops = [w for w in self.panel.findChildren(QWidget) if _takes_tab(w)]
        if not stops:
            return True
        order = _tab_order(self.panel, stops)
        now = QApplication.focusWidget()
        at = order.index(now) if now in order else (-1 if forward else 0)
        order[(at + (1 if forward else -1)) % len(order)].setFocus(
            Qt.FocusReason.TabFocusReason if forward else Qt.FocusReason.BacktabFocusReason
        )
        return True

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if not self.panel.geometry().contains(event.position().toPoint()):
            self.dismiss()
        event.accept()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.dismiss()
            return
        event.accept()  # keys of the page below are not meant while the overlay is open

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), self.theme.color("shadow", self._veil * (1.8 if self.theme.dark else 1.0)))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        around = self.panel.geometry()
        # A soft edge, without an effect that would draw the panel into a buffer each time.
        painter.setBrush(self.theme.color("shadow", 0.012))
        for step in range(22, 0, -1):
            painter.drawRoundedRect(around.adjusted(-step, -step + 6, step, step + 6), 10 + step, 10 + step)
        painter.end()


def _takes_tab(widget: QWidget) -> bool:
    return widget.isVisible() and widget.isEnabled() and bool(widget.focusPolicy() & Qt.FocusPolicy.TabFocus)


def _tab_order(panel: QWidget, stops: list[QWidget]) -> list[QWidget]:
    """``stops`` in the order of Qt's focus chain."""
    wanted, order = set(stops), []
    widget = panel.nextInFocusChain()
    while widget is not panel and len(order) < len(stops):
        if widget in wanted and widget not in order:
            order.append(widget)
        widget = widget.nextInFocusChain()
    return order
