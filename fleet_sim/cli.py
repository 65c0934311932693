"""``fleet-sim``: a simulated fleet against a real broker, recorded histories, and what can go wrong in one.

Exit: 0 done, 1 refused or failed with a sentence and what to do, 2 wrong usage. Logs go to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import fleetui
from fleet_sim.frugal import one_blas_thread
from fleetui.common.domain.errors import ConfigError, OperatorError


def main(argv: Sequence[str] | None = None) -> int:
    one_blas_thread()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] == "record":
            return _record(arguments[1:])
        if arguments and arguments[0] == "faults":
            return _faults(arguments[1:])
        if arguments and arguments[0] == "scenarios":
            return _scenarios(arguments[1:])
        return _run(arguments)
    except OperatorError as error:
        print(f"fleet-sim: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


# ---------------------------------------------------------------- run


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet-sim",
        description="Run a simulated fleet: the real agent, many times, over a real broker.",
        epilog=(
            "Other commands: 'fleet-sim record' writes a past week into a file, 'fleet-sim faults' lists what can "
            "go wrong, 'fleet-sim scenarios' lists the timelines that come along. Each has --help."
        ),
    )
    parser.add_argument("--version", action="version", version=f"fleet-sim {fleetui.__version__}")
    parser.add_argument("--devices", type=_positive, default=200, metavar="N", help="how many (%(default)s)")
    parser.add_argument(
        "--scenario", default="calm", metavar="FILE", help="what goes wrong and when: a TOML file or a name"
    )
    parser.add_argument("--seed", type=_natural, default=1, metavar="S", help="the fleet's seed (%(default)s)")
    parser.add_argument(
        "--broker", default="mqtt://127.0.0.1:1883", metavar="URL", help="mqtt:// or mqtts:// (%(default)s)"
    )
    parser.add_argument("--fleet", default="main", metavar="F", help="name of the fleet (%(default)s)")
    access = parser.add_mutually_exclusive_group()
    access.add_argument("--secret", type=Path, metavar="FILE", help="the broker's keys/local.secret")
    access.add_argument(
        "--certs", type=Path, metavar="DIR", help="DIR/ca.crt and DIR/<device>.crt and .key for each device"
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate", type=_rate, default=1.0, metavar="X", help="fleet seconds in a second (%(default)s)"
    )
    pace.add_argument("--clock", metavar="FLEET@REAL*RATE", help="fleet time that others share")
    parser.add_argument("--beat", type=_seconds, default=30.0, metavar="S", help="fleet seconds (%(default)s)")
    parser.add_argument("--window", type=_seconds, default=300.0, metavar="S", help="fleet seconds (%(default)s)")
    parser.add_argument(
        "--control", choices=["stdio"], help="JSON lines: commands in, figures out; the end of stdin ends it"
    )
    parser.add_argument("--processes", type=_positive, metavar="P", help="1 up to 2,500 devices, 2 above")
    parser.add_argument("--quiet-world", action="store_true", help="no lost links or restarts but by the scenario")
    parser.add_argument("--part", type=_part, default=(0, 1), help=argparse.SUPPRESS)
    parser.add_argument("--log-level", default="WARNING", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def _run(arguments: list[str]) -> int:
    parser = _run_parser()
    args = parser.parse_args(arguments)
    from fleet_sim import runner
    from fleet_sim.run_config import RunConfig
    from fleetui.common import logs
    from fleetui.common.child import say
    from fleetui.common.domain.values import fleet_name

    logs.set_up("fleet-sim", level=args.log_level)
    part, parts = args.part
    processes = 1 if parts > 1 else args.processes or runner.processes_for(args.devices)
    if processes > args.devices:
        raise ConfigError(f"{processes} processes are more than {args.devices} devices", "Ask for fewer")
    config = RunConfig(
        devices=args.devices,
        broker=args.broker,
        scenario=args.scenario,
        seed=args.seed,
        fleet=fleet_name(args.fleet),
        secret=args.secret,
        certificates=args.certs,
        clock=args.clock,
        rate=args.rate,
        beat_s=args.beat,
        window_s=args.window,
        part=part,
        parts=parts,
        quiet=args.quiet_world,
        control=args.control == "stdio",
    )
    try:
        return runner.run(config, _for_workers(config, args), processes)
    except OperatorError as error:
        if config.control:
            say("stopped", reason=str(error), sentence=error.sentence, fix=error.fix)
        raise


def _for_workers(config: object, args: argparse.Namespace) -> list[str]:
    """The arguments of a worker process: the same, with one clock for all."""
    from fleet_sim.run_config import RunConfig
    from fleetui.common.domain.clock import ScaledClock

    assert isinstance(config, RunConfig)
    clock = config.make_clock()
    spec = clock.spec if isinstance(clock, ScaledClock) else None
    argv = [
        f"--devices={args.devices}",
        f"--scenario={args.scenario}",
        f"--seed={args.seed}",
        f"--broker={args.broker}",
        f"--fleet={args.fleet}",
        f"--beat={args.beat}",
        f"--window={args.window}",
        f"--log-level={args.log_level}",
        "--control=stdio",
    ]
    if args.secret is not None:
        argv.append(f"--secret={args.secret}")
    if args.certs is not None:
        argv.append(f"--certs={args.certs}")
    if spec is not None:
        argv.append(f"--clock={spec}")
    if args.quiet_world:
        argv.append("--quiet-world")
    return argv


# ---------------------------------------------------------------- record


def _record(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fleet-sim record",
        description="Write what a fleet would have reported in the past: a history for charts and detectors.",
    )
    parser.add_argument("--devices", type=_positive, default=200, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--seed", type=_natural, default=1, metavar="S", help="the fleet's seed (%(default)s)")
    parser.add_argument("--fleet", default="main", metavar="F", help="name of the fleet (%(default)s)")
    parser.add_argument("--hours", type=_hours, default=168.0, metavar="H", help="how long (%(default)s)")
    parser.add_argument("--until", type=float, metavar="AT", help="where it ends: Unix seconds (default: now)")
    parser.add_argument("--window", type=_seconds, default=1800.0, metavar="S", help="of windows (%(default)s)")
    parser.add_argument("--beat", type=_seconds, default=600.0, metavar="S", help="of beats (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the recording")
    parser.add_argument("--control", choices=["stdio"], help="JSON lines on stdout")
    args = parser.parse_args(arguments)
    from fleet_sim import history
    from fleet_sim.world import population
    from fleetui.common.child import say
    from fleetui.common.domain.clock import SystemClock
    from fleetui.common.domain.values import fleet_name

    until = SystemClock().now() if args.until is None else args.until
    people = population.make(args.devices, args.seed, fleet_name(args.fleet))
    count = history.record(
        people,
        args.out,
        until=until,
        hours=args.hours,
        window_s=args.window,
        beat_s=args.beat,
        progress=(lambda share: say("progress", share=round(share, 3))) if args.control else None,
    )
    if args.control:
        say("stopped", reason="done", messages=count, file=str(args.out))
    else:
        print(f"{count} messages of {args.devices} devices over {args.hours:g} h in {args.out}")
    return 0


# ---------------------------------------------------------------- lists


def _faults(arguments: list[str]) -> int:
    argparse.ArgumentParser(
        prog="fleet-sim faults", description="What can go wrong, for scenarios and for the command 'inject'."
    ).parse_args(arguments)
    from fleet_sim.world.applications import APPLICATIONS
    from fleet_sim.world.faults import KINDS
    from fleetui.common.domain.ages import write

    for kind in KINDS.values():
        print(f"{kind.name:<10} {kind.help}")
        for p in kind.parameters:
            default = write(p.default, p.unit)
            print(f"           {p.name} = {default}: {p.help}")
        if kind.takes_features:
            print("           features = one or more, by name or number (default: the first)")
    print()
    for application in APPLICATIONS:
        print(f"features of {application.handle}: {', '.join(application.features)}")
    return 0


def _scenarios(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fleet-sim scenarios",
        description="List the timelines that come along; with names, check and show those.",
    )
    parser.add_argument("scenario", nargs="*", metavar="FILE", help="a TOML file or a name")
    args = parser.parse_args(arguments)
    from fleet_sim.world import scenario
    from fleetui.common.domain.ages import duration

    for name in args.scenario or scenario.shipped():
        found = scenario.load(name)
        print(f"{name:<8} {found.title}, {len(found.steps)} steps")
        if args.scenario:
            for step in sorted(found.steps, key=lambda s: s.at_s):
                print(
                    f"  after {duration(step.at_s):<12} {step.name} ({step.fault}: {step.select or 'all devices'})"
                )
    return 0


# ---------------------------------------------------------------- arguments


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 63:
        raise argparse.ArgumentTypeError(f"{text} is not a natural number")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.01 and 100000")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 31 * 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and {31 * 86400}")
    return value


def _hours(text: str) -> float:
    value = float(text)
    if not 0 < value <= 24 * 366:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {24 * 366}")
    return value


def _part(text: str) -> tuple[int, int]:
    part, parts = text.split("/")
    return int(part), int(parts)
