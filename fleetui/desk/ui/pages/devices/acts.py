"""What can be done with devices, as commands, and the words that a confirmation needs. No widgets."""

from __future__ import annotations

from collections.abc import Sequence

from fleetui.common.domain.errors import ConfigError
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.commands import NEEDS_ONE, NEEDS_SELECTION, Command, Need
from fleetui.desk.app.text import QT_TRANSLATE_NOOP, plural

DEVICES = QT_TRANSLATE_NOOP("Commands", "Devices")
NEEDS_ROWS = Need("devices.rows", QT_TRANSLATE_NOOP("Commands", "No device is shown"))
NEEDS_FILTER = Need("devices.filtered", QT_TRANSLATE_NOOP("Commands", "No filter is set"))
NEEDS_DRAWER = Need("devices.drawer", QT_TRANSLATE_NOOP("Commands", "No device is open"))
NAME_LENGTH = 64  # as the station takes it

COMMANDS: tuple[Command, ...] = (
    Command(
        "devices.filter", QT_TRANSLATE_NOOP("Commands", "Filter devices"), group=DEVICES, shortcut="Ctrl+F",
        icon="filter", keywords=("search", "find"),
    ),
    Command(
        "devices.clear_filter", QT_TRANSLATE_NOOP("Commands", "Clear the filter"), group=DEVICES,
        shortcut="Ctrl+Shift+F", icon="close", needs=(NEEDS_FILTER,),
    ),
    Command(
        "devices.open", QT_TRANSLATE_NOOP("Commands", "Open device"), group=DEVICES, shortcut="Ctrl+Return",
        icon="open", needs=(NEEDS_SELECTION,), keywords=("details", "drawer"),
    ),
    Command(
        "devices.close", QT_TRANSLATE_NOOP("Commands", "Close device"), group=DEVICES, shortcut="Ctrl+W",
        icon="close", needs=(NEEDS_DRAWER,),
    ),
    Command(
        "devices.ask_report", QT_TRANSLATE_NOOP("Commands", "Ask to report now"), group=DEVICES,
        shortcut="Ctrl+R", icon="refresh", needs=(NEEDS_SELECTION,), keywords=("ping", "refresh"),
    ),
    Command(
        "devices.rename", QT_TRANSLATE_NOOP("Commands", "Rename…"), group=DEVICES, shortcut="F2", icon="tag",
        needs=(NEEDS_ONE,), keywords=("name",),
    ),
    Command(
        "devices.copy_id", QT_TRANSLATE_NOOP("Commands", "Copy device id"), group=DEVICES,
        shortcut="Ctrl+Shift+C", icon="copy", needs=(NEEDS_SELECTION,),
    ),
    Command(
        "devices.copy", QT_TRANSLATE_NOOP("Commands", "Copy rows as text"), group=DEVICES, shortcut="Ctrl+C",
        icon="copy", needs=(NEEDS_SELECTION,),
    ),
    Command(
        "devices.remove", QT_TRANSLATE_NOOP("Commands", "Remove…"), group=DEVICES, shortcut="Del", icon="trash",
        needs=(NEEDS_SELECTION,), destructive=True, keywords=("delete", "forget"),
    ),
    Command(
        "devices.save_view", QT_TRANSLATE_NOOP("Commands", "Save as view…"), group=DEVICES, shortcut="Ctrl+S",
        icon="save", keywords=("bookmark",),
    ),
    Command(
        "devices.columns", QT_TRANSLATE_NOOP("Commands", "Choose columns…"), group=DEVICES, icon="columns",
        shortcut="Ctrl+Shift+O",
    ),
    Command(
        "devices.sort_now", QT_TRANSLATE_NOOP("Commands", "Sort now"), group=DEVICES, shortcut="F5", icon="refresh",
        keywords=("order", "refresh"),
    ),
    Command(
        "devices.export_csv", QT_TRANSLATE_NOOP("Commands", "Export as CSV…"), group=DEVICES, shortcut="Ctrl+E",
        icon="download", needs=(NEEDS_ROWS,), keywords=("save", "spreadsheet"),
    ),
    Command(
        "devices.export_json", QT_TRANSLATE_NOOP("Commands", "Export as JSON…"), group=DEVICES, icon="download",
        needs=(NEEDS_ROWS,), keywords=("save",),
    ),
)  # fmt: skip

# In a row's menu, in this order; an empty id is a line.
MENU = (
    "devices.open", "devices.ask_report", "", "devices.rename", "devices.copy_id", "devices.copy", "",
    "devices.remove",
)  # fmt: skip


def touched(table: DeviceTable, devices: Sequence[str]) -> str:
    """“187 devices in 3 sites”; a single one by its name."""
    if len(devices) == 1:
        row = table.row_of(devices[0])
        name = table.text("name", row) if row >= 0 else ""
        return f"{name} ({devices[0]})" if name and name != devices[0] else devices[0]
    sites = {table.text("site", row) for device in devices if (row := table.row_of(device)) >= 0} - {""}
    where = f" in {plural(len(sites), 'site')}" if sites else ""
    return plural(len(devices), "device") + where


def alive(table: DeviceTable, devices: Sequence[str]) -> int:
    """How many of them are online: removing those makes little sense."""
    return sum(table.text("status", row) == "online" for d in devices if (row := table.row_of(d)) >= 0)


def device_name(text: str) -> str:
    """A name as the station takes it; empty means the one that the device reports."""
    tidy = " ".join(text.split())
    if len(tidy) > NAME_LENGTH:
        raise ConfigError("The name is too long", f"Use at most {NAME_LENGTH} characters")
    if not tidy.isprintable():
        raise ConfigError("The name holds characters that cannot be shown", "Leave them out")
    return tidy
