"""The same environment as the README's commands make, with the linters in it."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fleetui import bootstrap

TORCH = "torch==2.13.0"

if __name__ == "__main__" and Path(sys.prefix).resolve() != (bootstrap.ROOT / ".venv").resolve():
    folder = bootstrap.ROOT / ".venv"
    python = folder / "bin/python"
    extras = ["desk", "postgres", "compile", "trees", "tflite", "stablehlo", "tensorflow", "peers"]
    groups = ["test", "test-qt", "test-compile", "lint"]
    bootstrap.prepare(folder, python, [*(f"extra:{e}" for e in extras), *(f"group:{g}" for g in groups)])
    # Not in the lock file: what the index calls torch brings gigabytes of GPU libraries unless pip is told better.
    if subprocess.run([str(python), "-c", "import torch"], capture_output=True, check=False).returncode:
        subprocess.run([str(python), "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", TORCH], check=True)
