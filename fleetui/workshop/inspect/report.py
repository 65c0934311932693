"""A ``Report`` as JSON and as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fleetui.workshop.frontends.base import Port, Problem, Report
from fleetui.workshop.inspect.limits import human


def to_json(report: Report) -> dict[str, Any]:
    return asdict(report)


def from_json(made: dict[str, Any]) -> Report:
    return Report(
        **{
            **made,
            "inputs": [_port(p) for p in made["inputs"]],
            "outputs": [_port(p) for p in made["outputs"]],
            "problems": [Problem(**p) for p in made["problems"]],
        }
    )


def _port(made: dict[str, Any]) -> Port:
    return Port(made["name"], tuple(made["shape"]), made["dtype"])


def count(number: float) -> str:
    """``1234567`` → ``1.23 M``."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(number) < 1000 or unit == " T":
            return f"{number:.0f}{unit}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError


def shape_text(shape: Iterable[int | str]) -> str:
    return "×".join(str(d) for d in shape) or "scalar"


def lines(report: Report, name: str) -> list[str]:
    """What ``fleetui inspect`` prints."""
    rows = [("file", name), ("kind", f"{report.title} ({report.kind})"), ("size", human(report.bytes))]
    rows.append(("parameters", f"{count(report.parameters)} ({report.parameters:,})"))
    if report.flops:
        once = " with symbolic dimensions as 1" if report.symbolic else ""
        rows.append(("operations", f"{count(report.flops)}FLOP per run{once}".replace(" FLOP", " FLOP")))
    if report.symbolic:
        rows.append(("symbolic", ", ".join(report.symbolic)))
    rows += [(key.replace("_", " "), str(value)) for key, value in report.details.items() if _short(value)]
    width = max(len(key) for key, _ in rows)
    text = [f"{key:<{width}}  {value}" for key, value in rows]
    for title, ports in (("inputs", report.inputs), ("outputs", report.outputs)):
        text += ["", title, *_table([(p.name, shape_text(p.shape), p.dtype) for p in ports])]
    if report.operators:
        found = sorted(report.operators.items(), key=lambda item: (-item[1], item[0]))
        text += ["", "operators", *_table([(op, str(times)) for op, times in found])]
    if report.problems:
        text += ["", f"problems: {len(report.problems)}"]
        text += [f"  {p.operator} at {p.node or 'an unnamed node'}: {p.sentence}" for p in report.problems[:20]]
        if len(report.problems) > 20:
            text.append(f"  and {len(report.problems) - 20} more (all of them with --json)")
    text += [f"warning: {warning}" for warning in report.warnings]
    return [*text, "", f"next: {advice(report, name)}"]


def advice(report: Report, name: str) -> str:
    """What to do now: one sentence."""
    if report.problems:
        wanted = sorted({p.operator for p in report.problems})
        return f"it cannot be compiled as it is: replace {', '.join(wanted[:6])} in the model, and export it again"
    if report.symbolic:
        open_ports = [p for p in report.inputs if any(isinstance(d, str) for d in p.shape)]
        settle = " ".join(
            f"--input {p.name}={'x'.join('1' if isinstance(d, str) else str(d) for d in p.shape)}"
            for p in open_ports
        )
        if settle:
            return f"settle the symbolic dimensions: fleetui compile {name} {settle} -o DIR"
    return f"fleetui compile {name} -o DIR"


def _short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and len(str(value)) <= 120


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return ["  none"]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
