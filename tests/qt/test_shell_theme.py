"""Colours, contrast, icons, and switching while the window is open."""

from __future__ import annotations

import itertools
import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFontMetrics, QPalette
from PySide6.QtWidgets import QApplication, QLabel

from fleetui.common.domain.errors import BugError
from fleetui.desk.ui import resources
from fleetui.desk.ui.icons import source
from fleetui.desk.ui.theme import Theme, mix
from fleetui.desk.ui.widgets.basic import IconLabel

HERE = Path(__file__).resolve().parents[2]
THEMES = {name: json.loads(resources.text("themes", f"{name}.json")) for name in ("light", "dark")}


def linear(color: QColor) -> np.ndarray:
    rgb = np.array([color.redF(), color.greenF(), color.blueF()])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(color: QColor) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


def contrast(one: QColor, other: QColor) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("name", THEMES)
def test_text_can_be_read_on_every_surface(name: str) -> None:
    colors = {k: QColor(v) for k, v in {**THEMES[name]["roles"], **THEMES[name]["status"]}.items()}
    for text, surface in itertools.product(
        ("text", "muted", "accent", "ok", "warn", "bad", "idle", "info"), ("window", "surface", "raised")
    ):
        assert contrast(colors[text], colors[surface]) >= 4.5, f"{text} on {surface} in {name}"
    for text, surface in (("text", "sunken"), ("muted", "sunken"), ("on_accent", "accent")):
        assert contrast(colors[text], colors[surface]) >= 4.5, f"{text} on {surface} in {name}"
    # Placeholders, axes and what is switched off need less, but must be there.
    assert contrast(colors["faint"], colors["surface"]) >= 3.8
    chosen = mix(colors["accent"], colors["surface"], 0.14)
    assert contrast(colors["text"], chosen) >= 4.5


# What the three kinds of colour blindness see, in linear light (Machado, Oliveira and Fernandes, 2009, severity 1).
SEEN = {
    "protanopia": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998),
    "deuteranopia": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881),
    "tritanopia": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039),
}


def lab(light: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(light, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SEEN)
@pytest.mark.parametrize("name", THEMES)
def test_series_and_status_are_told_apart_with_every_colour_sight(name: str, sight: str) -> None:
    matrix = np.array(SEEN[sight]).reshape(3, 3)

    def distance(one: str, other: str) -> float:
        return float(np.linalg.norm(lab(matrix @ linear(QColor(one))) - lab(matrix @ linear(QColor(other)))))

    status = THEMES[name]["status"]
    for one, other in (("ok", "bad"), ("ok", "warn"), ("warn", "bad")):
        assert distance(status[one], status[other]) >= 10, f"{one} and {other}"
    for one, other in itertools.combinations(THEMES[name]["series"][:4], 2):
        assert distance(one, other) >= 10, f"{one} and {other}"


def test_both_themes_have_the_same_roles() -> None:
    assert THEMES["light"]["roles"].keys() == THEMES["dark"]["roles"].keys()
    assert THEMES["light"]["status"].keys() == THEMES["dark"]["status"].keys()
    assert len(THEMES["light"]["series"]) == len(THEMES["dark"]["series"]) >= 8


def test_no_colour_stands_outside_the_themes() -> None:
    color = re.compile(r"""["']#[0-9a-fA-F]{3,8}["']|QColor\(["']|#[0-9a-fA-F]{6}\b""")
    found = [
        f"{file.relative_to(HERE)}: {line.strip()}"
        for file in (HERE / "fleetui/desk").rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if color.search(line)
    ]
    assert not found
    assert not color.search(resources.text("themes", "base.qss"))


def test_every_icon_is_one_colour_on_one_grid(qapp: QApplication) -> None:
    from PySide6.QtSvg import QSvgRenderer

    files = sorted(resources.path("icons").glob("*.svg"))
    assert len(files) >= 40
    for file in files:
        text = file.read_text("utf-8")
        assert 'viewBox="0 0 24 24"' in text, file.name
        assert 'stroke="currentColor"' in text, file.name
        assert not re.search(r'(fill|stroke)="(?!none|currentColor)', text), file.name
        assert set(text) <= set(string.printable), file.name
        assert QSvgRenderer(source(file.stem, QColor("red"))).isValid(), file.name


def test_every_icon_that_is_named_exists() -> None:
    call = r"\b(?:icon|pixmap|Icon\w+)\((?:(?:\w+\.)*_?theme, )?"
    named = re.compile(call + r""""([a-z][a-z-]*)"|icon="([a-z-]+)"|Look\("([a-z-]+)",""")
    known = {file.stem for file in resources.path("icons").glob("*.svg")}
    used = set()
    for file in (HERE / "fleetui/desk").rglob("*.py"):
        for groups in named.findall(file.read_text("utf-8")):
            used.update(g for g in groups if g)
    missing = used - known
    assert len(used) >= 20
    assert not missing


def test_theme_switches_live(qapp: QApplication, qtbot: object) -> None:
    theme = Theme(qapp, "light")
    icon = IconLabel(theme, "search", "text", 24)
    qtbot.addWidget(icon)  # type: ignore[attr-defined]
    title = QLabel("FleetUI")
    qtbot.addWidget(title)  # type: ignore[attr-defined]
    light_window = qapp.palette().color(QPalette.ColorRole.Window)
    light_ink = darkest(icon)
    with qtbot.wait_signal(theme.changed):  # type: ignore[attr-defined]
        theme.set_mode("dark")
    assert theme.dark
    assert qapp.palette().color(QPalette.ColorRole.Window).lightness() < light_window.lightness() - 100
    assert title.palette().color(QPalette.ColorRole.WindowText).lightness() > 180
    assert darkest(icon) > light_ink + 80, "the icon was drawn anew in the new colour"
    theme.set_mode("light")
    assert not theme.dark


def darkest(icon: IconLabel) -> int:
    image = icon.pixmap().toImage()
    return min(
        image.pixelColor(x, y).lightness()
        for x in range(image.width())
        for y in range(image.height())
        if image.pixelColor(x, y).alpha() > 200
    )


def test_icons_are_rendered_for_the_pixel_ratio_not_scaled(qapp: QApplication) -> None:
    theme = Theme(qapp, "light")
    twice = theme.pixmap("devices", "text", 16, 2.0)
    assert (twice.width(), twice.height(), twice.devicePixelRatio()) == (32, 32, 2.0)
    assert theme.pixmap("devices", "text", 16, 2.0).cacheKey() == twice.cacheKey()
    theme.set_mode("dark")
    assert theme.pixmap("devices", "text", 16, 2.0).cacheKey() != twice.cacheKey()


def test_digits_have_one_width(qapp: QApplication) -> None:
    theme = Theme(qapp, "light")
    for style in ("caption", "small", "body", "strong", "display"):
        metrics = QFontMetrics(theme.font(style))
        assert len({metrics.horizontalAdvance(d * 20) for d in string.digits}) == 1, style


def test_style_sheet_is_filled(qapp: QApplication) -> None:
    Theme(qapp, "dark")
    assert "{{" not in qapp.styleSheet()
    assert THEMES["dark"]["roles"]["surface"] in qapp.styleSheet()


def test_what_does_not_exist_is_a_bug(qapp: QApplication) -> None:
    theme = Theme(qapp, "light")
    with pytest.raises(BugError):
        theme.color("mauve")
    with pytest.raises(BugError):
        theme.pixmap("no-such-icon")
    with pytest.raises(BugError):
        theme.set_mode("sepia")


def test_movements_are_left_out_where_the_system_asks_for_it(qapp: QApplication) -> None:
    theme = Theme(qapp, "light")
    assert theme.motion("slow") > 0
    if hasattr(Qt, "MotionPreference"):
        theme._motion_changed(Qt.MotionPreference.ReducedMotion)
    else:
        theme.reduced_motion = True
    assert theme.motion("slow") == 0
