"""The settings page, generated from the declarations in ``app/settings_list.py``: nothing is laid out by hand.

A value is checked by its setting; what is wrong with it is said under its field, and the value in force stays.
Main thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication, QEvent, QObject, Qt, Signal, Slot
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QLineEdit,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from fleetui.common.domain.errors import ConfigError
from fleetui.desk.app.setting import Setting
from fleetui.desk.ui.context import DeskContext, Page
from fleetui.desk.ui.theme import Theme, repolish
from fleetui.desk.ui.widgets.basic import (
    Button,
    IconButton,
    IconLabel,
    SearchField,
    Switch,
    column,
    label,
    line,
    named,
    row,
)
from fleetui.desk.ui.widgets.empty import EmptyState

if TYPE_CHECKING:
    from collections.abc import Callable

EDITOR_WIDTH = 280


def words(text: str) -> str:
    """A declared text in the user's language."""
    return QCoreApplication.translate("Settings", text) if text else ""


class Editor(QWidget):
    """The field of one setting: ``edited(value)`` when a person gave another one."""

    edited = Signal(object)

    def __init__(self, theme: Theme, setting: Setting[Any]) -> None:
        super().__init__()
        self.setting = setting
        name = words(setting.label)
        self._set: Callable[[Any], None]
        if setting.kind == "flag":
            field, self._set = self._flag(theme, name)
        elif setting.kind == "choice":
            field, self._set = self._choice(setting, name)
        elif setting.kind in {"integer", "number"}:
            field, self._set = self._number(setting, name)
        else:
            field, self._set = self._text(setting, name)
        self.field = field
        field.setAccessibleDescription(words(setting.description))
        field.installEventFilter(self)

    def show_value(self, value: Any) -> None:
        self.field.blockSignals(True)
        self._set(value)
        self.field.blockSignals(False)

    def _flag(self, theme: Theme, name: str) -> tuple[QWidget, Callable[[Any], None]]:
        switch = Switch(theme, name)
        word = label("", "body", "muted")

        def show(value: Any) -> None:
            switch.setChecked(bool(value))
            word.setText(self.tr("On") if value else self.tr("Off"))

        switch.clicked.connect(lambda _=False: (show(switch.isChecked()), self.edited.emit(switch.isChecked())))
        self.setLayout(row(switch, word, 1, space=10, margins=(0, 6, 0, 6)))
        return switch, show

    def _choice(self, setting: Setting[Any], name: str) -> tuple[QWidget, Callable[[Any], None]]:
        box = QComboBox()
        named(box, name)
        for choice in setting.choices:
            box.addItem(words(choice.label), choice.value)
        box.setEnabled(len(setting.choices) > 1)
        box.activated.connect(lambda _: self.edited.emit(box.currentData()))
        self.setLayout(row(box))
        return box, lambda value: box.setCurrentIndex(box.findData(value))

    def _number(self, setting: Setting[Any], name: str) -> tuple[QWidget, Callable[[Any], None]]:
        whole = setting.kind == "integer"
        box = QSpinBox() if whole else QDoubleSpinBox()
        named(box, name)
        low = setting.low if setting.low is not None else -1e9
        high = setting.high if setting.high is not None else 1e9
        if isinstance(box, QSpinBox):
            box.setRange(int(low), int(high))
            box.setGroupSeparatorShown(high > 9999 and not setting.key.endswith("port"))
        else:
            box.setRange(low, high)
            box.setDecimals(1)
            box.setSingleStep(0.5)
        if setting.unit:
            box.setSuffix(f" {setting.unit}")
        box.setKeyboardTracking(False)
        box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.UpDownArrows)
        box.setFixedWidth(140)
        box.lineEdit().setTextMargins(6, 0, 0, 0)
        box.valueChanged.connect(lambda value: self.edited.emit(value))
        self.setLayout(row(box, 1))
        return box, box.setValue

    def _text(self, setting: Setting[Any], name: str) -> tuple[QWidget, Callable[[Any], None]]:
        field = QLineEdit()
        named(field, name)
        field.setPlaceholderText(setting.placeholder)
        field.editingFinished.connect(lambda: self.edited.emit(field.text()))
        self.setLayout(row(field))
        return field, field.setText

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # A page that is scrolled must not change the values it scrolls past.
        if event.type() == QEvent.Type.Wheel and not self.field.hasFocus():
            event.ignore()
            return True
        return False


class SettingRow(QWidget):
    """One setting: its words, its field, its default, what is wrong, and whether it waits for a restart."""

    def __init__(self, context: DeskContext, setting: Setting[Any], at_start: Any) -> None:
        super().__init__()
        self._context, self.setting, self._at_start = context, setting, at_start
        theme = context.theme
        self.editor = Editor(theme, setting)
        self.editor.setFixedWidth(EDITOR_WIDTH)
        self.editor.edited.connect(self._edited)
        name = words(setting.label)
        self.reset = IconButton(theme, "undo", self.tr("Reset: {0}").format(name))
        self.reset.clicked.connect(self._reset)
        self._default = label(self._default_text(), "small", "faint")
        self._restart = QWidget()
        self._restart.setLayout(
            row(
                IconLabel(theme, "refresh", "warn", 14),
                label(self.tr("takes effect at the next start"), "small", "warn"),
                1,
                space=6,
            )
        )
        self._wrong = label("", "small", "bad", wrap=True)
        self._wrong.setFixedWidth(EDITOR_WIDTH)
        title = label(name, "strong")
        title.setBuddy(self.editor.field)
        left = column(title, label(words(setting.description), "small", "muted", wrap=True), 1, space=2)
        right = column(
            row(self.editor, self.reset, space=4), self._wrong, row(self._default, 1), self._restart, 1, space=3
        )
        layout = row(left, right, space=32, margins=(20, 14, 12, 12))
        layout.setStretch(0, 1)
        self.setLayout(layout)
        self.reset.setSizePolicy(self.reset.sizePolicy())
        policy = self.reset.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.reset.setSizePolicy(policy)
        self.refresh()

    @property
    def searchable(self) -> str:
        setting = self.setting
        parts = (setting.key, setting.group, setting.label, setting.description, words(setting.label))
        return " ".join((*parts, words(setting.description), *(c.label for c in setting.choices))).casefold()

    def _default_text(self) -> str:
        setting = self.setting
        if setting.kind == "flag":
            word = self.tr("On") if setting.default else self.tr("Off")
        elif setting.choices:
            word = next(words(c.label) for c in setting.choices if c.value == setting.default)
        elif setting.default == "":
            word = self.tr("empty")
        else:
            word = f"{setting.default:g}" if isinstance(setting.default, float) else str(setting.default)
            word += f" {setting.unit}" if setting.unit else ""
        return self.tr("Default: {0}").format(word)

    def refresh(self) -> None:
        """Shows the value in force."""
        value = self._context.settings.get(self.setting)
        changed = not self._context.settings.is_default(self.setting.key)
        self.editor.show_value(value)
        self.reset.setVisible(changed)
        self._default.setVisible(changed)
        self._restart.setVisible(self.setting.restart and value != self._at_start)
        self._say("")

    def _say(self, wrong: str) -> None:
        self._wrong.setText(wrong)
        self._wrong.setVisible(bool(wrong))
        self.editor.field.setProperty("wrong", bool(wrong))
        repolish(self.editor.field)

    @Slot(object)
    def _edited(self, value: object) -> None:
        try:
            self._context.settings.set(self.setting.key, value)
        except ConfigError as error:
            self._say(str(error))
            return
        self.refresh()

    @Slot()
    def _reset(self) -> None:
        self._context.settings.reset(self.setting.key)
        self.refresh()
        self.editor.field.setFocus()


class SettingsPage(Page):
    """Every declared setting, by group, to be searched."""

    page_id = "settings"
    icon_name = "settings"

    def __init__(self, context: DeskContext) -> None:
        super().__init__(context)
        theme = context.theme
        self._rows: list[SettingRow] = []
        self._lines: dict[SettingRow, QFrame] = {}
        self._cards: dict[str, tuple[QWidget, list[SettingRow]]] = {}
        self.search = SearchField(theme, self.tr("Search settings"))
        self.search.textChanged.connect(self._filter)
        self._jumps = QVBoxLayout()
        self._jumps.setSpacing(2)
        body, inner = QWidget(), QWidget()
        body.setProperty("clear", True)
        holder = row(inner)
        holder.setStretch(0, 1000)
        holder.addStretch(1)
        body.setLayout(holder)
        cards = QVBoxLayout(inner)
        cards.setContentsMargins(0, 0, 24, 24)
        cards.setSpacing(8)
        for group, settings in context.settings.groups():
            cards.addWidget(self._group(group, settings))
            jump = Button(theme, words(group), "quiet", name=self.tr("Go to {0}").format(words(group)))
            jump.setStyleSheet("text-align: left;")
            jump.clicked.connect(lambda _=False, g=group: self._jump(g))
            self._jumps.addWidget(jump)
        self._nothing = EmptyState(
            theme, "search", self.tr("No setting is called that"), self.tr("Clear the search to see all of them.")
        )
        self._nothing.hide()
        cards.addWidget(self._nothing, 1)
        if context.settings.path is not None:
            file = label(self.tr("Kept in {0}").format(context.settings.path), "small", "faint")
            cards.addWidget(file)
        cards.addStretch(1)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        inner.setMaximumWidth(880)
        self._area.setWidget(body)
        side = QWidget()
        side.setFixedWidth(212)
        side.setLayout(column(self.search, self._jumps, 1, space=12))
        middle = row(side, self._area, space=28, margins=(24, 20, 0, 0))
        middle.setStretch(1, 1)
        middle.addStretch(0)
        self.setLayout(middle)
        self._stop = context.settings.observe(self._changed)

    @property
    def title(self) -> str:
        return self.tr("Settings")

    def _group(self, group: str, settings: tuple[Setting[Any], ...]) -> QWidget:
        card = QFrame()
        card.setProperty("card", True)
        inside = QVBoxLayout(card)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(0)
        rows = []
        for setting in settings:
            made = SettingRow(self.context, setting, self.context.settings.get(setting))
            if rows:
                between = line()
                inside.addWidget(between)
                self._lines[made] = between
            inside.addWidget(made)
            rows.append(made)
            self._rows.append(made)
        whole = QWidget()
        whole.setLayout(column(label(words(group), "heading"), card, space=8, margins=(0, 0, 0, 12)))
        self._cards[group] = (whole, rows)
        return whole

    def rows(self) -> tuple[SettingRow, ...]:
        return tuple(self._rows)

    def row_of(self, key: str) -> SettingRow:
        return next(r for r in self._rows if r.setting.key == key)

    def enter(self, **where: Any) -> None:
        if key := where.get("key"):
            found = self.row_of(key)
            self.search.clear()
            self._area.ensureWidgetVisible(found, 0, 120)
            found.editor.field.setFocus()

    def _jump(self, group: str) -> None:
        self.search.clear()
        card, rows = self._cards[group]
        self._area.verticalScrollBar().setValue(card.y())
        rows[0].editor.field.setFocus()

    @Slot(str)
    def _filter(self, text: str) -> None:
        wanted = text.casefold().split()
        found = 0
        for card, rows in self._cards.values():
            first = True
            for made in rows:
                hit = all(word in made.searchable for word in wanted)
                made.setVisible(hit)
                if made in self._lines:
                    self._lines[made].setVisible(hit and not first)
                first = first and not hit
                found += hit
            card.setVisible(not first)
        self._nothing.setVisible(not found)

    def _changed(self, key: str, _value: Any) -> None:
        for made in self._rows:
            if made.setting.key == key:
                made.refresh()
