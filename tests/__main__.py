"""``python3 -m tests``: the whole test suite; from a checkout it installs what it needs first.

Arguments go to pytest: ``python3 -m tests -k broker``. ``FLEETUI_PURE=1 python3 -m tests`` runs what does not
need Qt in an environment that does not have it.
"""

import os
import sys

from fleetui.bootstrap import ROOT, ensure

if __name__ == "__main__":
    pure = os.environ.get("FLEETUI_PURE") == "1"
    needs = ["msgspec", "sqlalchemy", "alembic", "psycopg", "pytest", "hypothesis", "pytest_randomly", "psutil"]
    if pure:
        ensure("tests", needs, ["station", "postgres"], ["test"], ".venv-pure")
    else:
        compiler = ["tvm", "onnx", "onnxruntime", "ziglang", "sklearn", "lightgbm", "tflite", "jax", "tensorflow"]
        extras = ["desk", "postgres", "compile", "trees", "tflite", "stablehlo", "tensorflow", "peers"]
        groups = ["test", "test-qt", "test-compile"]
        ensure("tests", [*needs, "PySide6", "pytestqt", *compiler], extras, groups)
    import pytest

    os.chdir(ROOT)
    sys.exit(pytest.main(sys.argv[1:]))
