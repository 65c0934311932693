"""How the desk looks: colour roles, type and spacing scales, one style sheet, tinted icons.

``resources/themes/{light,dark}.json`` name every colour there is; ``tokens.json`` every size; ``base.qss`` is a
template over both. No other file holds a colour. The theme follows the system (``QStyleHints.colorScheme``) or
the setting, switches while the window is open, and clears what was drawn in the old colours. Main thread only.

Widgets say *what* they are (``label.setProperty("type", "title")``, ``button.setProperty("kind", "primary")``)
and the style sheet says how that looks. Painters ask :meth:`Theme.color`, :meth:`Theme.look` and
:meth:`Theme.pixmap`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from PySide6.QtCore import QObject, Qt, QTemporaryDir, Signal, Slot
from PySide6.QtGui import QColor, QFont, QFontDatabase, QIcon, QPalette, QPixmap
from PySide6.QtWidgets import QApplication

from fleetui.common.domain.errors import BugError
from fleetui.desk.ui import resources
from fleetui.desk.ui.icons import IconCache, source

FAMILY = "Inter"
MODES = ("system", "light", "dark")


@dataclass(frozen=True, slots=True)
class Look:
    """How a status is shown: always icon and word and colour, never colour alone."""

    icon: str
    role: str
    word: str


@cache
def _json(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.text("themes", name))
    return loaded


class Theme(QObject):
    """The one theme of the application. ``changed()`` comes after palette, style sheet and caches are new."""

    changed = Signal()

    def __init__(self, app: QApplication, mode: str = "system", parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._app = app
        self._mode = mode
        self.reduced_motion = False
        self._motion_hints: QObject | None = None
        self._tokens = _json("tokens.json")
        self._icons = IconCache()
        self._colors: dict[str, QColor] = {}
        self._series: list[QColor] = []
        self._files = QTemporaryDir()
        self._looks: dict[str, Look] = {}
        self._fonts: dict[str, QFont] = {}
        self.dark = False
        _load_fonts()
        app.setStyle("Fusion")
        app.setFont(self.font("body"))
        app.styleHints().colorSchemeChanged.connect(self._scheme_changed)
        self._follow_motion()
        self._ask_scheme()
        self._apply()

    # ------------------------------------------------------------ what is in force

    @property
    def mode(self) -> str:
        return self._mode

    def set_mode(self, mode: str) -> None:
        """``system``, ``light`` or ``dark``; takes effect at once."""
        if mode not in MODES:
            raise BugError(f"{mode!r} is not a theme")
        if mode == self._mode:
            return
        self._mode = mode
        self._ask_scheme()
        self._refresh()

    def _ask_scheme(self) -> None:
        # Tells the platform too, so that title bars and native dialogs go along.
        wanted = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}
        self._app.styleHints().setColorScheme(wanted.get(self._mode, Qt.ColorScheme.Unknown))

    def _follow_motion(self) -> None:
        """Whether the system asks for fewer movements; Qt tells since 6.12."""
        self._style_hints = self._app.styleHints()  # kept: what it hands out dies with its wrapper
        if not hasattr(Qt, "MotionPreference"):
            return
        self._motion_hints = self._style_hints.accessibility()
        self._motion_hints.motionPreferenceChanged.connect(self._motion_changed)
        self._motion_changed(self._motion_hints.motionPreference())

    @Slot(object)
    def _motion_changed(self, preference: object) -> None:
        self.reduced_motion = preference == Qt.MotionPreference.ReducedMotion

    @Slot(Qt.ColorScheme)
    def _scheme_changed(self, _scheme: Qt.ColorScheme) -> None:
        self._refresh()

    def _wants_dark(self) -> bool:
        if self._mode == "system":
            return self._app.styleHints().colorScheme() == Qt.ColorScheme.Dark
        return self._mode == "dark"

    def _refresh(self) -> None:
        if self._wants_dark() != self.dark:
            self._apply()

    def _apply(self) -> None:
        self.dark = self._wants_dark()
        theme = _json("dark.json" if self.dark else "light.json")
        self._colors = {name: QColor(value) for name, value in {**theme["roles"], **theme["status"]}.items()}
        self._series = [QColor(value) for value in theme["series"]]
        self._icons.clear()
        self._app.setPalette(self._palette())
        self._app.setStyleSheet(self._style_sheet())
        self.changed.emit()

    # ------------------------------------------------------------ colours

    def color(self, role: str, alpha: float = 1.0) -> QColor:
        """The colour of a role; ``alpha`` lets what lies below shine through."""
        found = self._colors.get(role)
        if found is None:
            raise BugError(f"there is no colour role {role!r}")
        color = QColor(found)
        if alpha < 1.0:
            color.setAlphaF(alpha)
        return color

    def soft(self, role: str, share: float = 0.12, over: str = "surface") -> QColor:
        """``share`` of a role mixed into a background: opaque, so that text on it has a known contrast."""
        return mix(self.color(role), self.color(over), share)

    def series(self, index: int) -> QColor:
        """The colour of the n-th line of a chart; told apart with every kind of colour sight."""
        return QColor(self._series[index % len(self._series)])

    def paint(self, name: str) -> QColor:
        """A role, or ``series:N``: what charts name their colours by."""
        return self.series(int(name[7:])) if name.startswith("series:") else self.color(name)

    def look(self, status: str) -> Look:
        """Icon, colour role and word of a status."""
        if not self._looks:
            self._looks = self._make_looks()
        return self._looks.get(status) or Look("unknown", "idle", status.replace("_", " "))

    def _make_looks(self) -> dict[str, Look]:
        return {
            "online": Look("online", "ok", self.tr("online")),
            "late": Look("late", "warn", self.tr("late")),
            "offline": Look("offline", "bad", self.tr("offline")),
            "unknown": Look("unknown", "idle", self.tr("unknown")),
            "pending": Look("clock", "info", self.tr("pending")),
            "accepted": Look("check", "ok", self.tr("accepted")),
            "preauthorized": Look("check", "info", self.tr("preauthorised")),
            "rejected": Look("close", "bad", self.tr("rejected")),
            "decommissioned": Look("offline", "idle", self.tr("decommissioned")),
            "debug": Look("info", "idle", self.tr("detail")),
            "info": Look("info", "info", self.tr("information")),
            "warning": Look("warning", "warn", self.tr("warning")),
            "error": Look("error", "bad", self.tr("error")),
            "critical": Look("error", "bad", self.tr("critical")),
            "connected": Look("online", "ok", self.tr("connected")),
            "waiting": Look("late", "warn", self.tr("reconnecting")),
            "refused": Look("error", "bad", self.tr("refused")),
            "idle": Look("minus", "idle", self.tr("idle")),
            "reading": Look("busy", "info", self.tr("reading")),
            "silent": Look("late", "bad", self.tr("silent")),
            "backing_off": Look("busy", "warn", self.tr("restarting")),
            "connecting": Look("busy", "warn", self.tr("connecting")),
            "disconnected": Look("offline", "bad", self.tr("disconnected")),
            "running": Look("online", "ok", self.tr("running")),
            "starting": Look("busy", "warn", self.tr("starting")),
            "restarting": Look("busy", "warn", self.tr("restarting")),
            "stopping": Look("busy", "idle", self.tr("stopping")),
            "stopped": Look("offline", "idle", self.tr("stopped")),
            "failed": Look("error", "bad", self.tr("failed")),
            "none": Look("minus", "idle", self.tr("none")),
        }

    # ------------------------------------------------------------ icons

    def pixmap(self, name: str, role: str = "text", size: int = 16, ratio: float = 1.0) -> QPixmap:
        """One icon in one colour, rendered for this device pixel ratio. Cached: cheap enough for delegates."""
        return self._icons.pixmap(name, self._colors[role], size, ratio)

    def icon(self, name: str, role: str = "text", size: int = 16) -> QIcon:
        return self._icons.icon(name, self._colors[role], self._colors["control"], size)

    # ------------------------------------------------------------ sizes

    def space(self, name: str) -> int:
        """A distance of the one spacing scale: xxs 2, xs 4, s 8, m 12, l 16, xl 24, xxl 32."""
        return int(self._tokens["space"][name])

    def size(self, name: str) -> int:
        return int(self._tokens["size"][name])

    def radius(self, name: str = "m") -> int:
        return int(self._tokens["radius"][name])

    def motion(self, name: str = "fast") -> int:
        """Milliseconds that a movement takes; 0 where movements are unwanted."""
        return 0 if self.reduced_motion else int(self._tokens["motion"][name])

    def font(self, style: str = "body") -> QFont:
        """A font of the one type scale; digits have one width throughout, so numbers align."""
        found = self._fonts.get(style)
        if found is None:
            found = self._fonts[style] = self._make_font(style)
        return QFont(found)

    def _make_font(self, style: str) -> QFont:
        token = self._tokens["type"][style]
        if style == "mono":
            font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        else:
            font = QFont([FAMILY, self._system_family()])
            font.setFeature(QFont.Tag("tnum"), 1)
        font.setPointSizeF(_points(token["px"]))
        font.setWeight(QFont.Weight(token["weight"]))
        return font

    @staticmethod
    def _system_family() -> str:
        return QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont).family()

    # ------------------------------------------------------------ palette and style sheet

    def _palette(self) -> QPalette:
        role = QPalette.ColorRole
        palette = QPalette()
        table = {
            role.Window: "window",
            role.WindowText: "text",
            role.Base: "surface",
            role.AlternateBase: "window",
            role.Text: "text",
            role.Button: "surface",
            role.ButtonText: "text",
            role.BrightText: "on_accent",
            role.ToolTipBase: "raised",
            role.ToolTipText: "text",
            role.PlaceholderText: "faint",
            role.Link: "accent",
            role.LinkVisited: "accent",
            role.Accent: "accent",
            role.Light: "surface",
            role.Midlight: "hover",
            role.Mid: "border",
            role.Dark: "control",
            role.Shadow: "shadow",
        }
        for where, name in table.items():
            palette.setColor(where, self.color(name))
        palette.setColor(role.Highlight, self.soft("accent", 0.16))
        palette.setColor(role.HighlightedText, self.color("text"))
        disabled = QPalette.ColorGroup.Disabled
        for where in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
            palette.setColor(disabled, where, self.color("faint"))
        palette.setColor(disabled, role.Accent, self.color("control"))
        return palette

    def _style_sheet(self) -> str:
        return re.sub(r"\{\{\s*(.+?)\s*\}\}", self._fill, resources.text("themes", "base.qss"))

    def _fill(self, match: re.Match[str]) -> str:
        """One ``{{…}}``: a role, ``role 12%`` over the surface, ``space.m``, ``type.title``, ``icon:name:role``."""
        words = match[1]
        if words.startswith("icon:"):
            _, name, role = words.split(":")
            return self._icon_file(name, role)
        group, _, name = words.partition(".")
        if name and group == "type":
            token = self._tokens["type"][name]
            return f"font-size: {_points(token['px']):g}pt; font-weight: {token['weight']}"
        if name:
            return f"{self._tokens[group][name]}px"
        role, _, share = words.partition(" ")
        color = self.soft(role, float(share.rstrip("%")) / 100) if share else self.color(role)
        return color.name()

    def _icon_file(self, name: str, role: str) -> str:
        # Style sheets take images from files only; Qt renders an SVG at whatever ratio it is shown with.
        path = f"{self._files.path()}/{name}-{role}-{'dark' if self.dark else 'light'}.svg"
        with open(path, "wb") as file:  # noqa: PTH123 - the folder is Qt's, its path a text
            file.write(source(name, self.color(role)))
        return path


def mix(color: QColor, over: QColor, share: float) -> QColor:
    """``share`` of one colour and the rest of another."""
    rest = 1.0 - share
    return QColor.fromRgbF(
        color.redF() * share + over.redF() * rest,
        color.greenF() * share + over.greenF() * rest,
        color.blueF() * share + over.blueF() * rest,
    )


def _points(pixels: float) -> float:
    # Points follow the desktop's text scaling, pixels would not. On macOS a point is a pixel.
    return pixels if sys.platform == "darwin" else pixels * 0.75


def _load_fonts() -> None:
    if FAMILY in QFontDatabase.families():
        return
    for file in sorted(resources.path("fonts").glob("*.otf")):
        QFontDatabase.addApplicationFont(str(file))


def repolish(widget: Any) -> None:
    """Let the style sheet look at a widget again after one of its properties changed."""
    style = widget.style()
    style.unpolish(widget)
    style.polish(widget)
    widget.update()
