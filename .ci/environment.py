"""The same environment as the README's commands make, with the linters in it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fleetui import bootstrap

if __name__ == "__main__" and Path(sys.prefix).resolve() != (bootstrap.ROOT / ".venv").resolve():
    folder = bootstrap.ROOT / ".venv"
    python = folder / "bin/python"
    parts = ["extra:desk", "extra:postgres", "group:test", "group:test-qt", "group:lint"]
    bootstrap.prepare(folder, python, parts)
