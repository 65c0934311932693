"""The desk's settings: declared once, as data (``settings_list.py``), and kept in one JSON file.

The settings page, the documentation (``resources/docs/settings.md``) and validation derive from the
declarations.
The file holds only what differs from the default; keys that this program does not know are kept as they are,
so that an older desk does not erase a newer one's.

Beside settings, which people choose, the file keeps *state* that the window remembers by itself (sizes, the
last page): ``remember`` and ``recall``. Used from the main thread alone; observers are called there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fleetui.common.domain.errors import BugError, ConfigError
from fleetui.desk.app.setting import Setting, T
from fleetui.desk.app.settings_list import SETTINGS

log = logging.getLogger("fleetui.desk.settings")

FILE_VERSION = 1


def _by_key(settings: tuple[Setting[Any], ...]) -> dict[str, Setting[Any]]:
    table: dict[str, Setting[Any]] = {}
    for setting in settings:
        for key in (setting.key, *setting.renamed_from):
            if key in table:
                raise BugError(f"two settings are called {key}")
            table[key] = setting
    return table


Observer = Callable[[str, Any], None]


@dataclass(slots=True)
class Settings:
    """The values in force. ``problems`` lists, in sentences, what the file held that could not be used."""

    path: Path | None
    declared: tuple[Setting[Any], ...] = SETTINGS
    problems: list[str] = field(default_factory=list)
    _values: dict[str, Any] = field(default_factory=dict)
    _overrides: dict[str, Any] = field(default_factory=dict)
    _unknown: dict[str, Any] = field(default_factory=dict)
    _state: dict[str, Any] = field(default_factory=dict)
    _observers: list[tuple[str | None, Observer]] = field(default_factory=list)
    _table: dict[str, Setting[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._table = _by_key(self.declared)

    @classmethod
    def load(cls, path: Path | None, declared: tuple[Setting[Any], ...] = SETTINGS) -> Settings:
        """From ``path``; a file that is missing means defaults, one that is damaged is put aside and reported."""
        settings = cls(path, declared)
        if path is None or not path.exists():
            return settings
        try:
            data = json.loads(path.read_text("utf-8"))
            values: dict[str, Any] = dict(data["values"])
            state: dict[str, Any] = dict(data.get("state", {}))
        except OSError as error:
            raise ConfigError(
                f"The settings in {path} cannot be read: {error.strerror or error}", "Make the file readable"
            ) from None
        except (ValueError, KeyError, TypeError):
            aside = path.with_suffix(".damaged.json")
            path.replace(aside)
            settings.problems.append(
                f"The settings file was damaged; defaults are in force. It was kept as {aside.name}."
            )
            return settings
        settings._state = state
        for key, value in values.items():
            settings._take(key, value, values)
        return settings

    def _take(self, key: str, value: object, values: dict[str, Any]) -> None:
        setting = self._table.get(key)
        if setting is None:
            self._unknown[key] = value
            return
        if key != setting.key and setting.key in values:
            return  # the new name is in the file too, and wins
        try:
            self._values[setting.key] = setting.read(value)
        except ConfigError as error:
            self.problems.append(f"{error} The default is in force.")
            log.warning("setting %s: %s", key, error)

    def setting(self, key: str) -> Setting[Any]:
        try:
            return self._table[key]
        except KeyError:
            raise ConfigError(f"There is no setting “{key}”", "See the settings page for their names") from None

    def get(self, setting: Setting[T]) -> T:
        if setting.key in self._overrides:
            return cast("T", self._overrides[setting.key])
        return cast("T", self._values.get(setting.key, setting.default))

    def __getitem__(self, key: str) -> Any:
        return self.get(self.setting(key))

    def is_default(self, key: str) -> bool:
        return self.setting(key).key not in self._values

    def set(self, key: str, value: object) -> None:
        """Checks, keeps and writes one value, then tells who watches. Raises :class:`ConfigError`."""
        setting = self.setting(key)
        new = setting.read(value)
        old = self.get(setting)
        self._overrides.pop(setting.key, None)
        if new == setting.default:
            self._values.pop(setting.key, None)
        else:
            self._values[setting.key] = new
        if new != old:
            self.save()
            self._tell(setting.key, new)

    def reset(self, key: str) -> None:
        self.set(key, self.setting(key).default)

    def override(self, key: str, value: object) -> None:
        """A value for this run only, from the command line: never written."""
        setting = self.setting(key)
        self._overrides[setting.key] = setting.read(value)

    def observe(self, observer: Observer, key: str | None = None) -> Callable[[], None]:
        """Calls ``observer(key, value)`` after a change of ``key`` (of any, without); returns how to stop it."""
        entry = (None if key is None else self.setting(key).key, observer)
        self._observers.append(entry)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._observers.remove(entry)

        return stop

    def _tell(self, key: str, value: object) -> None:
        for wanted, observer in list(self._observers):
            if wanted in {None, key}:
                observer(key, value)

    def remember(self, key: str, value: Any) -> None:
        """Keeps a small JSON value that the window remembers by itself; written with the next ``save``."""
        self._state[key] = value

    def recall(self, key: str, default: Any = None) -> Any:
        return self._state.get(key, default)

    def save(self) -> None:
        """Writes beside and renames into place: a crash leaves the old file or the new one, never half of one."""
        if self.path is None:
            return
        values = {**self._unknown, **self._values}
        text = json.dumps(
            {"version": FILE_VERSION, "values": dict(sorted(values.items())), "state": self._state}, indent=2
        )
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise ConfigError(
                f"The settings cannot be written to {self.path}: {error.strerror or error}",
                "Free some space or make the folder writable",
            ) from None

    def groups(self) -> Iterator[tuple[str, tuple[Setting[Any], ...]]]:
        """Settings by group, in the order of declaration: how the settings page shows them."""
        for name in dict.fromkeys(s.group for s in self.declared):
            yield name, tuple(s for s in self.declared if s.group == name)


def docs_table(declared: tuple[Setting[Any], ...] = SETTINGS) -> str:
    """The settings as a Markdown page: the source of ``resources/docs/settings.md``."""
    lines = [
        "# Settings", "",
        "Generated from `fleetui/desk/app/settings.py`. Kept in `settings.json` of the base folder.", "",
    ]  # fmt: skip
    for group in dict.fromkeys(s.group for s in declared):
        lines += [f"## {group}", "", "| key | default | values | what it does |", "|---|---|---|---|"]
        for s in declared:
            if s.group != group:
                continue
            if s.choices:
                values = ", ".join(f"`{c.value}`" for c in s.choices)
            elif s.low is not None and s.high is not None:
                values = f"{s.low:g} to {s.high:g} {s.unit}".rstrip()
            else:
                values = {"flag": "`true`, `false`", "text": "text"}.get(s.kind, s.kind)
            default = json.dumps(s.default, ensure_ascii=False)
            restart = " Takes effect at the next start." if s.restart else ""
            old = f" Formerly {', '.join(f'`{k}`' for k in s.renamed_from)}." if s.renamed_from else ""
            lines.append(f"| `{s.key}` | `{default}` | {values} | **{s.label}.** {s.description}{restart}{old} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    sys.stdout.write(docs_table())
