"""Single-colour SVG icons, tinted when they are asked for.

Every file under ``resources/icons`` draws with ``currentColor`` on a 24 × 24 grid. A pixmap is rendered at the
size and device pixel ratio it will be shown with, never scaled. Caches belong to one colour scheme and are
cleared with it. Main thread only.
"""

from __future__ import annotations

from PySide6.QtCore import QByteArray, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QGuiApplication, QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from fleetui.common.domain.errors import BugError
from fleetui.desk.ui import resources

_sources: dict[str, str] = {}


def source(name: str, color: QColor) -> bytes:
    """The SVG of an icon in one colour."""
    text = _sources.get(name)
    if text is None:
        try:
            text = _sources[name] = resources.text("icons", f"{name}.svg")
        except FileNotFoundError:
            raise BugError(f"there is no icon named {name!r}") from None
    return text.replace("currentColor", color.name()).encode()


class IconCache:
    """Pixmaps and icons of one colour scheme."""

    def __init__(self) -> None:
        self._pixmaps: dict[tuple[str, int, int, float], QPixmap] = {}
        self._icons: dict[tuple[str, int, int, int], QIcon] = {}

    def clear(self) -> None:
        self._pixmaps.clear()
        self._icons.clear()

    def pixmap(self, name: str, color: QColor, size: int, ratio: float) -> QPixmap:
        key = (name, color.rgba(), size, ratio)
        found = self._pixmaps.get(key)
        if found is None:
            found = self._pixmaps[key] = _render(name, color, size, ratio)
        return found

    def icon(self, name: str, color: QColor, disabled: QColor, size: int) -> QIcon:
        """An icon with a disabled state, rendered for every pixel ratio among the screens."""
        key = (name, color.rgba(), disabled.rgba(), size)
        found = self._icons.get(key)
        if found is None:
            found = QIcon()
            for ratio in _ratios():
                found.addPixmap(self.pixmap(name, color, size, ratio), QIcon.Mode.Normal)
                found.addPixmap(self.pixmap(name, disabled, size, ratio), QIcon.Mode.Disabled)
            self._icons[key] = found
        return found


def _ratios() -> list[float]:
    return sorted({1.0, 2.0, *(screen.devicePixelRatio() for screen in QGuiApplication.screens())})


def _render(name: str, color: QColor, size: int, ratio: float) -> QPixmap:
    pixels = round(size * ratio)
    pixmap = QPixmap(QSize(pixels, pixels))
    pixmap.fill(Qt.GlobalColor.transparent)
    renderer = QSvgRenderer(QByteArray(source(name, color)))
    painter = QPainter(pixmap)
    painter.setOpacity(color.alphaF())
    renderer.render(painter, QRectF(0, 0, pixels, pixels))
    painter.end()
    pixmap.setDevicePixelRatio(ratio)
    return pixmap
