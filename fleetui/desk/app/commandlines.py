"""How the desk starts its children: their command lines, made from settings and folders. No processes here.

Every one of them is a command that a person could type: ``fleetui broker``, ``fleetui station``, ``mosquitto``.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import sys
from pathlib import Path

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.errors import ConfigError
from fleetui.desk.app.settings import Settings
from fleetui.desk.app.settings_list import (
    BEAT_S,
    BROKER_CA,
    BROKER_CERT,
    BROKER_KEY,
    BROKER_KIND,
    BROKER_MOSQUITTO,
    BROKER_PORT,
    BROKER_TLS_PORT,
    BROKER_URL,
    FLEET_NAME,
    STORE_URL,
)

TLS_PORT = 8883
STATION = "station"


def fleetui(*arguments: str) -> list[str]:
    """Our own program with this interpreter, whatever is on the path."""
    return [sys.executable, "-m", "fleetui.cli", *arguments]


def certificates(base: BaseDir, settings: Settings, port: int) -> Path:
    """The folder with authority, server's and station's certificates, and mosquitto's configuration; made once."""
    from fleetui.broker.export import Export, export

    folder = base.keys / "tls"
    names = tuple(dict.fromkeys(("localhost", "127.0.0.1", socket.gethostname())))
    export(folder, Export(settings.get(FLEET_NAME), names, (STATION,), "", port))
    return folder


def broker(base: BaseDir, settings: Settings, port: int) -> list[str]:
    """The embedded broker; ``port`` is the one it had before, or 0."""
    tls = settings.get(BROKER_TLS_PORT)
    command = fleetui(
        "broker", "--child", "--base-dir", str(base.root), "--fleet", settings.get(FLEET_NAME),
        "--port", str(settings.get(BROKER_PORT) or port),
    )  # fmt: skip
    if tls:
        folder = certificates(base, settings, tls)
        command += [
            "--tls-port",
            str(tls),
            "--cert",
            str(folder / "server.crt"),
            "--key",
            str(folder / "server.key"),
        ]
        command += ["--ca", str(folder / "ca.crt"), "--crl", str(folder / "crl.pem")]
    return command


def mosquitto_port(settings: Settings) -> int:
    return settings.get(BROKER_TLS_PORT) or TLS_PORT


def mosquitto(base: BaseDir, settings: Settings) -> list[str]:
    """Mosquitto with the exported configuration. Raises :class:`ConfigError` where it is not installed."""
    wanted = settings.get(BROKER_MOSQUITTO)
    places = [wanted] if wanted else ["mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
    program = next((found for place in places if (found := shutil.which(place))), None)
    if program is None:
        raise ConfigError(
            f"mosquitto was not found{f' at {wanted}' if wanted else ''}",
            "Install the Debian package mosquitto, or choose the built-in broker in the settings",
        )
    folder = certificates(base, settings, mosquitto_port(settings))
    # Started as root, mosquitto becomes another user and could not read our keys; else the line means nothing.
    own = folder / "mosquitto-here.conf"
    own.write_text(f"user {getpass.getuser()}\n{(folder / 'mosquitto.conf').read_text('utf-8')}", "utf-8")
    return [program, "-c", str(own)]


def answers(port: int) -> bool:
    """Whether something listens on this machine's ``port``."""
    with socket.socket() as one:
        one.settimeout(0.2)
        return one.connect_ex(("127.0.0.1", port)) == 0


def station(base: BaseDir, settings: Settings, clock: str) -> list[str]:
    """The station; the embedded broker's address it finds in the base folder by itself."""
    command = fleetui(
        "station", "--child", "--base-dir", str(base.root), "--fleet", settings.get(FLEET_NAME),
        "--beat", str(settings.get(BEAT_S)),
    )  # fmt: skip
    if settings.get(STORE_URL):
        command += ["--store", settings.get(STORE_URL)]
    if clock:
        command += ["--clock", clock]
    kind = settings.get(BROKER_KIND)
    if kind == "mosquitto":
        folder = base.keys / "tls"
        command += ["--broker", f"mqtts://localhost:{mosquitto_port(settings)}", "--id", STATION]
        command += ["--ca", str(folder / "ca.crt")]
        command += ["--cert", str(folder / f"{STATION}.crt"), "--key", str(folder / f"{STATION}.key")]
    elif kind == "url":
        if not settings.get(BROKER_URL):
            raise ConfigError(
                "The settings name a broker elsewhere, but not its address", "Write it in the settings"
            )
        command += ["--broker", settings.get(BROKER_URL)]
        files = ((BROKER_CA, "--ca"), (BROKER_CERT, "--cert"), (BROKER_KEY, "--key"))
        for setting, option in files:
            if settings.get(setting):
                command += [option, settings.get(setting)]
    return command
