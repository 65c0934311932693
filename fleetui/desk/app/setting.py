"""What a setting is: its type, its limits and its words. A value is checked here and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from fleetui.common.domain.errors import ConfigError

T = TypeVar("T", bound=bool | int | float | str)


@dataclass(frozen=True, slots=True)
class Choice:
    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One setting. ``check`` answers with what is wrong with a value of the right type, or with nothing."""

    key: str
    default: T
    group: str
    label: str
    description: str
    choices: tuple[Choice, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""
    restart: bool = False
    renamed_from: tuple[str, ...] = ()
    check: Callable[[T], str] | None = None
    placeholder: str = ""

    @property
    def kind(self) -> str:
        """How it is edited: ``flag``, ``choice``, ``integer``, ``number`` or ``text``."""
        if isinstance(self.default, bool):
            return "flag"
        if self.choices:
            return "choice"
        if isinstance(self.default, int):
            return "integer"
        return "number" if isinstance(self.default, float) else "text"

    def read(self, value: object) -> T:
        """``value`` as this setting's type and within its limits; raises :class:`ConfigError`."""
        kind = self.kind
        taken: object = value
        if isinstance(value, str) and kind not in {"text", "choice"}:
            taken = _from_text(value, kind)
        if kind == "flag" and isinstance(taken, bool):
            return cast("T", taken)
        if kind == "integer" and isinstance(taken, int) and not isinstance(taken, bool):
            return self._within(cast("T", taken))
        if kind == "number" and isinstance(taken, int | float) and not isinstance(taken, bool):
            return self._within(cast("T", float(taken)))
        if kind in {"choice", "text"} and isinstance(taken, str):
            return self._within(cast("T", taken.strip()))
        raise ConfigError(f"“{self.label}” cannot be {value!r}", self._expects())

    def _within(self, value: T) -> T:
        if self.choices and value not in {c.value for c in self.choices}:
            raise ConfigError(f"“{self.label}” cannot be “{value}”", self._expects())
        if isinstance(value, int | float):
            too_low = self.low is not None and value < self.low
            too_high = self.high is not None and value > self.high
            if too_low or too_high or value != value:  # noqa: PLR0124 - NaN is the value that is not itself
                raise ConfigError(f"“{self.label}” cannot be {value:g}", self._expects())
        wrong = self.check(value) if self.check else ""
        if wrong:
            raise ConfigError(f"“{self.label}” cannot be “{value}”", wrong)
        return value

    def _expects(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        match self.kind:
            case "flag":
                return "Choose true or false"
            case "choice":
                return "Choose one of " + ", ".join(f"“{c.value}”" for c in self.choices)
            case "integer" | "number":
                what = "a whole number" if self.kind == "integer" else "a number"
                if self.low is not None and self.high is not None:
                    return f"Choose {what} from {self.low:g} to {self.high:g}{unit}"
                return f"Choose {what}"
        return "Write a text"


def _from_text(text: str, kind: str) -> object:
    low = text.strip().lower()
    if kind == "flag":
        return {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }.get(low, text)
    with contextlib.suppress(ValueError):
        return int(low) if kind == "integer" else float(low)
    return text
