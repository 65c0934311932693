"""Which pages there are, and the commands of the window itself: data, no widgets."""

from __future__ import annotations

from dataclasses import dataclass

from fleetui.desk.app.commands import Command
from fleetui.desk.app.text import QT_TRANSLATE_NOOP


@dataclass(frozen=True, slots=True)
class PageSpec:
    """A page before it is made: ``module`` is imported on the first visit."""

    id: str
    title: str
    icon: str
    module: str
    cls: str
    foot: bool = False
    quick: bool = True  # it is there at once; one that brings libraries along comes after the first frame


PAGES: tuple[PageSpec, ...] = (
    PageSpec(
        "overview", QT_TRANSLATE_NOOP("Commands", "Overview"), "overview",
        "fleetui.desk.ui.pages.overview", "OverviewPage",
    ),
    PageSpec(
        "devices", QT_TRANSLATE_NOOP("Commands", "Devices"), "devices",
        "fleetui.desk.ui.pages.devices", "DevicesPage", quick=False,
    ),
    PageSpec(
        "settings", QT_TRANSLATE_NOOP("Commands", "Settings"), "settings",
        "fleetui.desk.ui.pages.settings", "SettingsPage", foot=True,
    ),
)  # fmt: skip

GO = QT_TRANSLATE_NOOP("Commands", "Go to")
VIEW = QT_TRANSLATE_NOOP("Commands", "View")
APP = QT_TRANSLATE_NOOP("Commands", "FleetUI")

COMMANDS: tuple[Command, ...] = (
    Command(
        "app.palette", QT_TRANSLATE_NOOP("Commands", "Search everything"), group=APP, shortcut="Ctrl+K",
        icon="search", in_palette=False,
    ),
    Command(
        "app.notifications", QT_TRANSLATE_NOOP("Commands", "Show notifications"), group=APP,
        shortcut="Ctrl+Shift+N", icon="bell",
    ),
    Command(
        "app.connections", QT_TRANSLATE_NOOP("Commands", "Show connections"), group=APP, icon="broker",
        keywords=("broker", "station", "store", "status"),
    ),
    Command(
        "app.shortcuts", QT_TRANSLATE_NOOP("Commands", "Keyboard shortcuts"), group=APP, shortcut="F1",
        icon="keyboard", keywords=("help", "keys"),
    ),
    Command("app.quit", QT_TRANSLATE_NOOP("Commands", "Quit"), group=APP, shortcut="Ctrl+Q", keywords=("exit",)),
    Command("app.back", QT_TRANSLATE_NOOP("Commands", "Back"), group=GO, shortcut="Alt+Left", icon="chevron-left"),
    Command(
        "app.forward", QT_TRANSLATE_NOOP("Commands", "Forward"), group=GO, shortcut="Alt+Right",
        icon="chevron-right",
    ),
    Command(
        "app.rail", QT_TRANSLATE_NOOP("Commands", "Narrow or wide navigation"), group=VIEW, shortcut="Ctrl+B",
        icon="sidebar",
    ),
    Command(
        "app.theme.light", QT_TRANSLATE_NOOP("Commands", "Light theme"), group=VIEW, icon="light",
        keywords=("appearance",),
    ),
    Command(
        "app.theme.dark", QT_TRANSLATE_NOOP("Commands", "Dark theme"), group=VIEW, icon="dark",
        keywords=("appearance", "night"),
    ),
    Command(
        "app.theme.system", QT_TRANSLATE_NOOP("Commands", "Theme of the system"), group=VIEW, icon="settings",
        keywords=("appearance", "light", "dark"),
    ),
)  # fmt: skip
