"""Reads targets from TOML: what FleetUI ships, what plug-ins bring, what the user wrote. Later ones win.

A file has one table for each target; the keys are the fields of ``Target``. ``like = "other"`` takes over what
another target says. The user's files lie in ``targets/`` of the base folder; a plug-in's entry point in the group
``fleetui.targets`` gives the path of such a file, or a mapping of the same shape.
"""

from __future__ import annotations

import difflib
import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from fleetui.common.basedir import default_base
from fleetui.workshop.errors import TargetError
from fleetui.workshop.target import Target
from fleetui.workshop.targets.host import host

GROUP = "fleetui.targets"
FIELDS = {field.name: field for field in fields(Target)}

Tables = dict[str, dict[str, Any]]


def shipped() -> Path:
    """The folder of the catalogue that comes with FleetUI, in the checkout or in the installed package."""
    package = Path(__file__).parents[2]
    for folder in (package / "_resources" / "targets", package.parent / "resources" / "targets"):
        if folder.is_dir():
            return folder
    raise TargetError("The catalogue of targets is missing", "Install FleetUI again")


def all_targets(folder: Path | None = None) -> dict[str, Target]:
    """Every target by name, ``host`` first. ``folder`` has the user's own files; without it, the base folder's."""
    tables: Tables = {}
    for path in sorted(shipped().glob("*.toml")):
        tables.update(_read(path))
    for point in entry_points(group=GROUP):
        found = point.load()
        tables.update(_read(Path(found)) if isinstance(found, (str, Path)) else _checked(found, point.name))
    own = folder if folder is not None else default_base() / "targets"
    if own.is_dir():
        for path in sorted(own.glob("*.toml")):
            tables.update(_read(path))
    return {"host": host(), **{name: _target(name, tables) for name in tables}}


def find(name: str, folder: Path | None = None) -> Target:
    """The target of that name, or a sentence with the nearest ones."""
    if name == "host":
        return linkable(host())
    known = all_targets(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4)
        raise TargetError(
            f"There is no target {name!r}",
            f"Did you mean {' or '.join(near)}?" if near else "List them with: fleetui targets",
        )
    return linkable(known[name])


def linkable(target: Target) -> Target:
    """The same target, with a reason in ``why_not`` if this machine cannot link for it."""
    if target.why_not:
        return target
    if importlib.util.find_spec("ziglang") is None and target.name != "host":
        return replace(target, why_not="the linker is not installed (pip install 'fleetui[compile]')")
    if not target.link:
        return replace(target, why_not="no linker for it comes with FleetUI")
    return target


def _read(path: Path) -> Tables:
    try:
        return _checked(tomllib.loads(path.read_text("utf-8")), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TargetError(f"{path} is not a file of targets: {error}", "Correct it, or move it away") from None


def _checked(tables: Mapping[str, Any], where: str) -> Tables:
    found: Tables = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise TargetError(f"{where}: {name} is not a table", "Every target is a table: [name]")
        for key, value in table.items():
            _check(f"{where}: {name}.{key}", key, value)
        found[name] = dict(table)
    return found


def _check(where: str, key: str, value: Any) -> None:
    if key == "like":
        good = isinstance(value, str)
    elif key not in FIELDS or key == "name":
        near = difflib.get_close_matches(key, FIELDS, 1)
        raise TargetError(f"{where}: targets have no such field", f"Did you mean {near[0]}?" if near else "")
    else:
        kind = str(FIELDS[key].type)
        good = {
            "str": lambda: isinstance(value, str),
            "bool": lambda: isinstance(value, bool),
            "int": lambda: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
            "float": lambda: isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0,
            "tuple[str, ...]": lambda: isinstance(value, list) and all(isinstance(v, str) for v in value),
        }.get(kind, lambda: isinstance(value, dict))()
    if not good:
        raise TargetError(f"{where}: {value!r} does not fit", "See resources/targets for examples")


def _target(name: str, tables: Tables) -> Target:
    merged: dict[str, Any] = {}
    chain: list[str] = []
    at: str | None = name
    while at is not None:
        if at in chain:
            raise TargetError(f"The target {name!r} is like itself: {' → '.join([*chain, at])}")
        if at not in tables:
            raise TargetError(f"The target {name!r} is like {at!r}, which there is not")
        chain.append(at)
        merged = {**tables[at], **merged}
        at = tables[at].get("like")
    merged.pop("like", None)
    for key in ("title", "triple"):
        if not merged.get(key):
            raise TargetError(f"The target {name!r} has no {key}", "Add it, or take it over with like = …")
    merged.setdefault("cpu", "")
    merged["features"] = tuple(merged.get("features", ()))
    for key in ("gflops", "bandwidth"):
        if key in merged:
            merged[key] = float(merged[key])
    return Target(name=name, **merged)
