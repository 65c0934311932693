"""The state tables as diagrams for ARCHITECTURE.md, between two markers.

::

    python -m fleetui.common.domain.diagrams                        # print them
    python -m fleetui.common.domain.diagrams --write ARCHITECTURE.md
    python -m fleetui.common.domain.diagrams --check ARCHITECTURE.md   # exit 1 if they are out of date

The text between the markers belongs to this program. A file without markers is left alone and refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fleetui.common.domain.errors import ConfigError, OperatorError
from fleetui.common.domain.states import TABLES

BEGIN = "<!-- states:begin -->"
END = "<!-- states:end -->"


def markdown() -> str:
    """One heading and one Mermaid diagram for each table."""
    parts = []
    for table, _events in TABLES:
        ends = ", ".join(f"`{state}`" for state in type(table.start) if state in table.ends)
        parts.append(f"### {table.name}\n\n```mermaid\n{table.mermaid()}\n```\n")
        if ends:
            parts.append(f"Ends: {ends}.\n")
    return "\n".join(parts)


def has_markers(text: str) -> bool:
    return BEGIN in text or END in text


def updated(text: str) -> str:
    """``text`` with the diagrams of now between its markers."""
    before, found, rest = text.partition(BEGIN)
    _old, ended, after = rest.partition(END)
    if not found or not ended or has_markers(before + after):
        raise ConfigError(
            "The file does not have one pair of markers for the diagrams",
            f"Put {BEGIN} and {END} on lines of their own where they should stand",
        )
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fleetui.common.domain.diagrams", description="The state tables as Mermaid."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", metavar="FILE", type=Path, help="renew the diagrams in FILE")
    what.add_argument("--check", metavar="FILE", type=Path, help="exit 1 if those in FILE are out of date")
    options = parser.parse_args(arguments)
    path: Path | None = options.write or options.check
    if path is None:
        sys.stdout.write(markdown())
        return 0
    try:
        old = path.read_text("utf-8")
        new = updated(old)
        if options.write and new != old:
            path.write_text(new, "utf-8")
    except OSError as error:
        sys.stderr.write(f"{path} cannot be used: {error.strerror or error}.\n")
        return 1
    except OperatorError as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    if options.check and new != old:
        sys.stderr.write(
            f"The diagrams in {path} are out of date. "
            f"Run python -m fleetui.common.domain.diagrams --write {path}.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
