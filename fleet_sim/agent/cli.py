"""``fleet-agent``: the agent on a device, what it is doing, and what it lacks.

Exit: 0 done, 1 refused or failed with a sentence and what to do, 2 wrong usage. Logs go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import fleetui
from fleet_sim.frugal import one_blas_thread
from fleetui.common.domain.errors import OperatorError

EPILOG = (
    "Without a command the agent runs until SIGTERM, then reports what it has, says goodbye and ends. "
    "'fleet-agent status' says what it is doing, 'fleet-agent doctor' what it lacks. "
    "The configuration is a TOML file with at least fleet, device, broker and data."
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-agent", description="Run the agent of one device.", epilog=EPILOG)
    parser.add_argument("command", nargs="?", choices=["run", "status", "doctor"], default="run")
    parser.add_argument("--version", action="version", version=f"fleet-agent {fleetui.__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", required=True, help="the configuration (TOML)")
    parser.add_argument("--clock", metavar="FLEET@REAL*RATE", help="fleet time that differs from this machine's")
    parser.add_argument("--json", action="store_true", help="status and doctor: one JSON object on stdout")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    one_blas_thread()
    args = _parser().parse_args(argv)
    try:
        return _main(args)
    except OperatorError as error:
        print(f"fleet-agent: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _main(args: argparse.Namespace) -> int:
    from fleet_sim.agent.settings import load
    from fleetui.common.domain.clock import clock_from_spec

    settings = load(args.config)
    clock = clock_from_spec(args.clock)
    if args.command == "status":
        from fleet_sim.agent import state

        known = state.read(settings.data) or {}
        up = state.running(settings.data)
        if args.json:
            print(json.dumps({"running": up, **known}))
        else:
            print("\n".join(_words(known, clock.now(), running=up)))
        return 0 if up else 1
    if args.command == "doctor":
        from fleet_sim.agent.doctor import examine

        findings = []
        for finding in examine(settings, clock):
            findings.append(finding)
            if not args.json:
                print(f"{'good' if finding.good else 'BAD '}  {finding.text}", flush=True)
        if args.json:
            print(json.dumps({"findings": [{"good": f.good, "text": f.text} for f in findings]}))
        return 0 if all(finding.good for finding in findings) else 1
    from fleet_sim.agent.shell import Shell
    from fleetui.common import logs
    from fleetui.common.child import on_signals

    logs.set_up("fleet-agent", level=args.log_level)
    shell = Shell(settings, clock)
    on_signals(shell.stop)
    shell.run()
    return 0


def _words(known: dict[str, object], now: float, *, running: bool) -> list[str]:
    from fleetui.common.domain import ages

    if not known:
        return ["No agent has run with this configuration."]
    number = {k: float(v) if isinstance(v, int | float) else float("nan") for k, v in known.items()}
    head = f"{known.get('device')} of {known.get('fleet')}: " + (
        f"runs as process {known.get('pid')} for {ages.duration(now - number['started'])}"
        if running
        else f"does not run; last heard of {ages.age(now - number['at'])} ago"
    )
    lines = [head]
    if running:
        reason = f" ({known['link_reason']})" if known.get("link_reason") else ""
        lines.append(f"connection  {known.get('link')} at {known.get('broker')}{reason}")
    lines += [
        f"model       {known.get('model')}: {known.get('rows')} rows, {known.get('errors')} failed",
        (
            f"reports     {known.get('sent')} sent, {known.get('acknowledged')} acknowledged, "
            f"{known.get('queued')} wait, {known.get('dropped')} dropped, {known.get('merged')} windows merged"
        ),
        (
            f"machine     cpu {ages.percent(number['cpu'])}, memory {ages.percent(number['memory'])}, "
            f"disk {ages.percent(number['disk'])}, {ages.temperature(number['temperature'])}"
        ),
    ]
    if known.get("problem"):
        lines.append(f"problem     the queue cannot be saved: {known['problem']}")
    return lines
