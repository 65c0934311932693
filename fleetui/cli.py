"""The command line: everything that the desk can do, a script can do.

``fleetui`` alone opens the desk. A subcommand's room is imported only when the subcommand is given, so that
``fleetui broker`` on a server needs neither Qt nor SQLAlchemy. With ``--json`` one JSON object goes to stdout;
logs go to stderr. Exit: 0 done, 1 refused or failed with a sentence and what to do, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from fleetui import __version__
from fleetui.common.domain.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: ``module`` has ``configure(parser)`` and ``run(args) -> int``."""

    module: str
    extra: str
    help: str


COMMANDS: dict[str, Command] = {
    "desk": Command("fleetui.desk.cli", "desk", "open the desk (the default)"),
    "broker": Command("fleetui.broker.cli", "", "run the embedded MQTT broker alone, or export a mosquitto set-up"),
    "station": Command("fleetui.station.cli", "station", "run the control process alone"),
    "store": Command("fleetui.store.cli", "station", "check, back up, restore or upgrade the database"),
    "inspect": Command(
        "fleetui.workshop.cli_inspect", "compile", "what a model's file holds, and what it would cost"
    ),
    "compile": Command("fleetui.workshop.cli_compile", "compile", "compile a model for one or more targets"),
    "bench": Command("fleetui.workshop.cli_bench", "peers", "time a compiled model beside its own framework"),
    "targets": Command("fleetui.workshop.cli_targets", "compile", "the hardware that can be compiled for"),
    "worker": Command("fleetui.workshop.cli_worker", "compile,station", "run compile jobs from the store"),
    "devices": Command("fleetui.desk.app.cli_devices", "station", "list devices, show one, ask something of some"),
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in {"-h", "--help"}:
        print(_help())
        return 0
    if arguments and arguments[0] == "--version":
        print(f"fleetui {__version__}")
        return 0
    name = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "desk"
    if name == "desk" and arguments and not arguments[0].startswith("-"):
        print(f"fleetui: there is no command {arguments[0]!r}. {_hint(arguments[0])}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"fleetui", "fleet_sim"}:
            raise
        extra = command.extra or "station"
        print(
            f"fleetui: 'fleetui {name}' needs {error.name}, which is not installed. "
            f"Install it: pip install 'fleetui[{extra}]'.",
            file=sys.stderr,
        )
        return 1
    parser = argparse.ArgumentParser(
        prog="fleetui" if name == "desk" else f"fleetui {name}", description=command.help.capitalize() + "."
    )
    module.configure(parser)
    args = parser.parse_args(arguments)
    try:
        code: int = module.run(args)
    except OperatorError as error:
        print(f"fleetui: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _help() -> str:
    rows = "\n".join(f"  {name:<10} {command.help}" for name, command in COMMANDS.items())
    return (
        "usage: fleetui [--base-dir DIR] [--demo [--devices N]] [--screenshot DIR]\n"
        "       fleetui COMMAND [...]\n\n"
        "Without a command the desk opens, with its own store, broker and station unless configured otherwise.\n\n"
        f"commands:\n{rows}\n\n"
        "'fleetui COMMAND --help' says more; 'fleetui --version' prints the version."
    )


def _hint(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return f"Did you mean 'fleetui {near[0]}'?" if near else "'fleetui --help' lists them."


if __name__ == "__main__":
    sys.exit(main())
