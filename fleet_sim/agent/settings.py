"""The agent's configuration: one TOML file, every fault in it said in a sentence with its place.

::

    fleet = "main"
    device = "press-17"
    broker = "mqtts://broker.example:8883"
    data = "/var/lib/fleet-agent"       # the queue and the state; one agent each

    # all of what follows may be left out
    name = "Press 17"
    site = "Hamburg"
    target = "rpi4-64"
    firmware = "2.4.2"

    [auth]                              # certificates, or secret = "keys/local.secret" on the same machine
    ca = "ca.crt"
    certificate = "press-17.crt"
    key = "press-17.key"

    [report]
    beat = "30s"
    window = "5m"

    [queue]
    reports = 500
    bytes = "512KiB"

    [model]
    handle = "vibration"
    name = "bearing-wear"
    version = "1.0"
    seed = 1
    features = 8
    classes = 4

    [source]
    rows = "5/s"
    batch = 8
    seed = 1

    [tags]
    line = "3"

Relative paths count from the file's folder. Reads the file and nothing else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_sim.agent.access import Access, Address, read_secret
from fleet_sim.agent.queue import Limits
from fleetui.common.domain import ages
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.values import is_id
from fleetui.common.link.transport import TlsFiles

LONGEST_WORD = 64


@dataclass(frozen=True, slots=True)
class ModelSettings:
    handle: str = "default"
    name: str = "random-mlp"
    version: str = "1.0"
    seed: int = 1
    features: int = 8
    hidden: int = 32
    classes: int = 4


@dataclass(frozen=True, slots=True)
class SourceSettings:
    rows_per_s: float = 5.0
    batch: int = 8
    seed: int = 1


@dataclass(frozen=True, slots=True)
class AgentSettings:
    fleet: str
    device: str
    access: Access
    data: Path
    name: str = ""
    site: str = ""
    target: str = "host"
    firmware: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    beat_s: float = 30.0
    window_s: float = 300.0
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    model: ModelSettings = ModelSettings()
    source: SourceSettings = SourceSettings()


def load(path: Path) -> AgentSettings:
    """Raises ``ConfigError``: one sentence about the first fault found."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"The configuration {path} cannot be read: {reason}", "Name the file with --config"
        ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}", "Correct the line it names") from None
    return _read(_Table(content, "", path))


class _Table:
    """One table of the file; remembers what was asked for, so that the rest can be refused."""

    def __init__(self, content: Mapping[str, Any], name: str, path: Path) -> None:
        self._content = content
        self._name = name
        self._path = path
        self._asked: set[str] = set()

    def _where(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def wrong(self, key: str, what: str, fix: str) -> ConfigError:
        return ConfigError(f"{self._where(key)} in {self._path} {what}", fix)

    def _get(self, key: str) -> Any:
        self._asked.add(key)
        return self._content.get(key)

    def table(self, key: str) -> _Table:
        value = self._get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(key, "is not a table", f"Write [{key}] before its lines")
        return _Table(value, self._where(key), self._path)

    def word(self, key: str, default: str | None = None, longest: int = LONGEST_WORD) -> str:
        value = self._get(key)
        if value is None:
            if default is None:
                raise ConfigError(f"{self._path} does not name the {key}", f'Add {key} = "…"')
            return default
        if not isinstance(value, str):
            raise self.wrong(key, f"is {value!r}, not a text", "Put it in quotes")
        if len(value) > longest or not value.isprintable():
            raise self.wrong(key, "is too long or has odd characters", f"Use at most {longest} plain characters")
        return value

    def identifier(self, key: str, default: str | None = None) -> str:
        value = self.word(key, default)
        if not is_id(value):
            raise self.wrong(key, f"cannot be {value!r}", "Use 1 to 64 letters, digits, '_', '.' or '-'")
        return value

    def path(self, key: str) -> Path | None:
        value = self.word(key, "", 4000)
        return (self._path.parent / Path(value).expanduser()) if value else None

    def number(self, key: str, default: float, low: float, high: float, unit: ages.Unit = ages.Unit.NONE) -> float:
        value = self._get(key)
        if value is None:
            return default
        fix = f"Write it like {ages.example(unit)}, from {ages.show(low, unit)} to {ages.show(high, unit)}"
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise self.wrong(key, f"is {value!r}, not a number", fix)
            found = ages.parse(value, unit) if isinstance(value, str) else float(value)
        except ValueError:
            raise self.wrong(key, f"cannot be {value!r}", fix) from None
        if not low <= found <= high:
            raise self.wrong(key, f"cannot be {value}", fix)
        return found

    def whole(self, key: str, default: int, low: int, high: int, unit: ages.Unit = ages.Unit.NONE) -> int:
        found = self.number(key, default, low, high, unit)
        if found != int(found):
            raise self.wrong(key, f"cannot be {found}", "Write a whole number")
        return int(found)

    def words(self, most: int) -> dict[str, str]:
        """Every key of this table with a text."""
        if len(self._content) > most:
            raise ConfigError(f"[{self._name}] in {self._path} has more than {most} entries", "Leave some out")
        for key in self._content:
            if len(key) > LONGEST_WORD:
                raise self.wrong(key, "is too long a name", f"Use at most {LONGEST_WORD} characters")
        return {key: self.word(key) for key in self._content}

    def end(self) -> None:
        """Refuse what nobody asked for: a misspelt key is worse than none."""
        for key in self._content:
            if key not in self._asked:
                import difflib

                near = difflib.get_close_matches(key, self._asked, n=1)
                fix = f"Did you mean {near[0]!r}?" if near else f"It may have {', '.join(sorted(self._asked))}"
                raise self.wrong(key, "means nothing here", fix)


def _read(top: _Table) -> AgentSettings:
    fleet, device = top.identifier("fleet"), top.identifier("device")
    broker, data = top.word("broker", longest=1000), top.path("data")
    if data is None:
        raise ConfigError("The configuration does not name the data folder", 'Add data = "/var/lib/fleet-agent"')
    auth = top.table("auth")
    files = {key: auth.path(key) for key in ("ca", "certificate", "key")}
    secret = auth.path("secret")
    auth.end()
    report, queue, model, source = (top.table(name) for name in ("report", "queue", "model", "source"))
    seconds, size = ages.Unit.SECONDS, ages.Unit.BYTES
    plain = ModelSettings(), SourceSettings(), Limits()
    settings = AgentSettings(
        fleet=fleet,
        device=device,
        access=_access(broker, files, secret),
        data=data,
        name=top.word("name", ""),
        site=top.word("site", ""),
        target=top.word("target", "host"),
        firmware=top.word("firmware", ""),
        tags=top.table("tags").words(20),
        beat_s=report.number("beat", 30.0, 0.2, 86400.0, seconds),
        window_s=report.number("window", 300.0, 0.5, 7 * 86400.0, seconds),
        limits=Limits(
            reports=queue.whole("reports", plain[2].reports, plain[2].inflight, 100_000),
            bytes=queue.whole("bytes", plain[2].bytes, 32 * 1024, 1 << 30, size),
            events=queue.whole("events", plain[2].events, 1, 100_000),
        ),
        model=ModelSettings(
            handle=model.identifier("handle", plain[0].handle),
            name=model.word("name", plain[0].name),
            version=model.word("version", plain[0].version),
            seed=model.whole("seed", plain[0].seed, 0, 1 << 53),
            features=model.whole("features", plain[0].features, 1, 10_000),
            hidden=model.whole("hidden", plain[0].hidden, 1, 10_000),
            classes=model.whole("classes", plain[0].classes, 2, 64),
        ),
        source=SourceSettings(
            rows_per_s=source.number("rows", plain[1].rows_per_s, 0.0, 100_000.0, ages.Unit.PER_SECOND),
            batch=source.whole("batch", plain[1].batch, 1, 10_000),
            seed=source.whole("seed", plain[1].seed, 0, 1 << 53),
        ),
    )
    for table in (report, queue, model, source, top):
        table.end()
    return settings


def _access(broker: str, files: Mapping[str, Path | None], secret: Path | None) -> Access:
    address = Address.parse(broker)
    given = [key for key, path in files.items() if path is not None]
    if secret is not None and given:
        raise ConfigError("[auth] has both a secret and certificates", "Keep one of them")
    if given and not address.tls:
        raise ConfigError(f"[auth] has certificates, but {address} is not TLS", "Write broker = mqtts://…")
    if address.tls and len(given) < 3:
        missing = ", ".join(key for key in files if key not in given)
        raise ConfigError(f"{address} wants certificates, and [auth] does not name: {missing}", "Add them")
    if secret is not None:
        return Access(address, read_secret(secret))
    if not given:
        return Access(address)
    ca = files["ca"]
    assert ca is not None
    return Access(address, tls=TlsFiles(ca, files["certificate"], files["key"]))
