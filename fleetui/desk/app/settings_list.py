"""Every setting of the desk, declared once. Adding one here is all it takes to have it on the settings page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fleetui.common.domain.values import is_id
from fleetui.desk.app.setting import Choice, Setting
from fleetui.desk.app.text import QT_TRANSLATE_NOOP


def _store_url(value: str) -> str:
    if not value:
        return ""
    scheme = urlsplit(value).scheme
    if scheme == "sqlite" or scheme.split("+")[0] in {"postgresql", "postgres"}:
        return ""
    return "Write sqlite:///FILE or postgresql://USER@HOST/DATABASE, or leave it empty for the built-in store"


def _broker_url(value: str) -> str:
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"mqtt", "mqtts"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    return "" if good else "Write mqtt://HOST:PORT or mqtts://HOST:PORT"


def _fleet(value: str) -> str:
    return "" if is_id(value) else "Use 1 to 64 letters, digits, “_”, “.” or “-”, beginning with a letter or digit"


APPEARANCE = QT_TRANSLATE_NOOP("Settings", "Appearance")
FLEET = QT_TRANSLATE_NOOP("Settings", "Fleet")
CONNECTION = QT_TRANSLATE_NOOP("Settings", "Broker and store")
NOTIFICATIONS = QT_TRANSLATE_NOOP("Settings", "Notifications")
BEHAVIOUR = QT_TRANSLATE_NOOP("Settings", "Behaviour")

THEME = Setting(
    "appearance.theme",
    "system",
    APPEARANCE,
    QT_TRANSLATE_NOOP("Settings", "Theme"),
    QT_TRANSLATE_NOOP("Settings", "Light or dark. “System” follows the desktop, also when it changes at dusk."),
    choices=(
        Choice("system", QT_TRANSLATE_NOOP("Settings", "System")),
        Choice("light", QT_TRANSLATE_NOOP("Settings", "Light")),
        Choice("dark", QT_TRANSLATE_NOOP("Settings", "Dark")),
    ),
)
DENSITY = Setting(
    "appearance.density",
    "comfortable",
    APPEARANCE,
    QT_TRANSLATE_NOOP("Settings", "Row height"),
    QT_TRANSLATE_NOOP("Settings", "How much room a row of a table takes."),
    choices=(
        Choice("comfortable", QT_TRANSLATE_NOOP("Settings", "Comfortable")),
        Choice("compact", QT_TRANSLATE_NOOP("Settings", "Compact")),
    ),
)
LANGUAGE = Setting(
    "appearance.language",
    "system",
    APPEARANCE,
    QT_TRANSLATE_NOOP("Settings", "Language"),
    QT_TRANSLATE_NOOP("Settings", "Of the window. Numbers and dates follow the system."),
    choices=(
        Choice("system", QT_TRANSLATE_NOOP("Settings", "System")),
        Choice("en", "English"),
    ),
    restart=True,
)
FLEET_NAME = Setting(
    "fleet.name",
    "main",
    FLEET,
    QT_TRANSLATE_NOOP("Settings", "Fleet name"),
    QT_TRANSLATE_NOOP("Settings", "Stands in every topic. Devices must be set up with the same name."),
    check=_fleet,
    restart=True,
)
BEAT_S = Setting(
    "fleet.beat_s",
    30,
    FLEET,
    QT_TRANSLATE_NOOP("Settings", "Beat interval"),
    QT_TRANSLATE_NOOP(
        "Settings",
        "How often a device shows a sign of life. One that misses several counts as late, then as offline.",
    ),
    low=1,
    high=3600,
    unit="s",
    restart=True,
)
BROKER_KIND = Setting(
    "broker.kind",
    "embedded",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Broker"),
    QT_TRANSLATE_NOOP(
        "Settings",
        "Who carries the messages. The built-in broker needs nothing else; use mosquitto or a broker "
        "cluster for a fleet that must outlive this desk.",
    ),
    choices=(
        Choice("embedded", QT_TRANSLATE_NOOP("Settings", "Built in")),
        Choice("mosquitto", QT_TRANSLATE_NOOP("Settings", "mosquitto on this machine")),
        Choice("url", QT_TRANSLATE_NOOP("Settings", "Elsewhere, by address")),
    ),
    restart=True,
)
BROKER_MOSQUITTO = Setting(
    "broker.mosquitto",
    "",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Path of mosquitto"),
    QT_TRANSLATE_NOOP("Settings", "Where the mosquitto program lies, if it is not found on the path."),
    restart=True,
    placeholder="/usr/sbin/mosquitto",
)
BROKER_URL = Setting(
    "broker.url",
    "",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Broker address"),
    QT_TRANSLATE_NOOP("Settings", "Of a broker elsewhere, MQTT 5."),
    check=_broker_url,
    restart=True,
    placeholder="mqtts://broker.example:8883",
)
BROKER_CA = Setting(
    "broker.ca",
    "",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Certificate authority"),
    QT_TRANSLATE_NOOP("Settings", "Who signed the certificate of a broker elsewhere: a PEM file."),
    restart=True,
    placeholder="/etc/fleetui/ca.crt",
)
BROKER_CERT = Setting(
    "broker.cert",
    "",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "The station's certificate"),
    QT_TRANSLATE_NOOP("Settings", "With which the station logs in at a broker elsewhere: a PEM file."),
    restart=True,
    placeholder="/etc/fleetui/station.crt",
)
BROKER_KEY = Setting(
    "broker.key",
    "",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "The station's key"),
    QT_TRANSLATE_NOOP("Settings", "The private key of that certificate: a PEM file that only you can read."),
    restart=True,
    placeholder="/etc/fleetui/station.key",
)
BROKER_PORT = Setting(
    "broker.port",
    0,
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Local port"),
    QT_TRANSLATE_NOOP("Settings", "Where the broker listens for programs on this machine. 0 takes any free port."),
    low=0,
    high=65535,
    restart=True,
)
BROKER_TLS_PORT = Setting(
    "broker.tls_port",
    0,
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Port for devices (TLS)"),
    QT_TRANSLATE_NOOP(
        "Settings", "Where the broker listens for devices with certificates, usually 8883. 0 keeps it closed."
    ),
    low=0,
    high=65535,
    restart=True,
)
STORE_URL = Setting(
    "store.url",
    "",
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Store"),
    QT_TRANSLATE_NOOP(
        "Settings",
        "Address of the database. Empty means the built-in SQLite file; several desks share a PostgreSQL.",
    ),
    check=_store_url,
    restart=True,
    placeholder="postgresql://fleet@db.example/fleet",
)
STATION_OWN = Setting(
    "station.own",
    True,
    CONNECTION,
    QT_TRANSLATE_NOOP("Settings", "Run a station with this desk"),
    QT_TRANSLATE_NOOP("Settings", "Off where the station runs on a server and this desk only looks at its store."),
    restart=True,
)
NOTIFY_INFO = Setting(
    "notifications.info",
    False,
    NOTIFICATIONS,
    QT_TRANSLATE_NOOP("Settings", "Show information"),
    QT_TRANSLATE_NOOP(
        "Settings", "Pop up for things that are good to know. The notification centre keeps them either way."
    ),
)
NOTIFY_WARNING = Setting(
    "notifications.warning",
    True,
    NOTIFICATIONS,
    QT_TRANSLATE_NOOP("Settings", "Show warnings"),
    QT_TRANSLATE_NOOP("Settings", "Pop up for things that want a look soon."),
)
NOTIFY_ERROR = Setting(
    "notifications.error",
    True,
    NOTIFICATIONS,
    QT_TRANSLATE_NOOP("Settings", "Show errors"),
    QT_TRANSLATE_NOOP("Settings", "Pop up for things that failed."),
)
NOTIFY_CRITICAL = Setting(
    "notifications.critical",
    True,
    NOTIFICATIONS,
    QT_TRANSLATE_NOOP("Settings", "Show critical errors"),
    QT_TRANSLATE_NOOP("Settings", "Pop up for things that stop the control room from working."),
)
REFRESH_HZ = Setting(
    "desk.refresh_hz",
    4.0,
    BEHAVIOUR,
    QT_TRANSLATE_NOOP("Settings", "Refresh rate"),
    QT_TRANSLATE_NOOP(
        "Settings", "How often the desk looks for changes. It slows down by itself when drawing takes long."
    ),
    low=0.2,
    high=4.0,
    unit="Hz",
)
RESORT_S = Setting(
    "desk.resort_s",
    5.0,
    BEHAVIOUR,
    QT_TRANSLATE_NOOP("Settings", "Keep rows still for"),
    QT_TRANSLATE_NOOP(
        "Settings",
        "Rows whose value changed move to their new place at most this often, so that nothing jumps "
        "while you read. 0 sorts only when you ask.",
    ),
    low=0,
    high=600,
    unit="s",
)
CONFIRM = Setting(
    "desk.confirm_destructive",
    True,
    BEHAVIOUR,
    QT_TRANSLATE_NOOP("Settings", "Ask before destructive acts"),
    QT_TRANSLATE_NOOP("Settings", "Say what will be touched and ask once before anything is removed."),
)
TELEMETRY = Setting(
    "desk.telemetry",
    "none",
    BEHAVIOUR,
    QT_TRANSLATE_NOOP("Settings", "Usage data"),
    QT_TRANSLATE_NOOP("Settings", "FleetUI sends nothing about its use to anyone. There is no other choice."),
    choices=(Choice("none", QT_TRANSLATE_NOOP("Settings", "None")),),
)

SETTINGS: tuple[Setting[Any], ...] = (
    THEME,
    DENSITY,
    LANGUAGE,
    FLEET_NAME,
    BEAT_S,
    BROKER_KIND,
    BROKER_MOSQUITTO,
    BROKER_URL,
    BROKER_CA,
    BROKER_CERT,
    BROKER_KEY,
    BROKER_PORT,
    BROKER_TLS_PORT,
    STORE_URL,
    STATION_OWN,
    NOTIFY_INFO,
    NOTIFY_WARNING,
    NOTIFY_ERROR,
    NOTIFY_CRITICAL,
    REFRESH_HZ,
    RESORT_S,
    CONFIRM,
    TELEMETRY,
)
