#!/usr/bin/env bash
# What a device gets: the wheel without extras, in an empty environment. It must start, and must not bring Qt,
# SQLAlchemy or TVM along.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv=.venv/bin/uv
[ -x "$uv" ] || uv=uv
"$uv" build --quiet --wheel --out-dir "$work/dist" .
"$uv" venv --quiet --python .venv/bin/python "$work/env"
"$uv" export --quiet --frozen --no-emit-project --no-header -o "$work/constraints.txt"
"$uv" pip install --quiet --python "$work/env/bin/python" --constraint "$work/constraints.txt" "$work"/dist/*.whl
cd "$work"
"$work/env/bin/fleet-agent" --help >/dev/null
"$work/env/bin/fleet-sim" --help >/dev/null
"$work/env/bin/fleetui" --version
"$work/env/bin/python" - <<'PYTHON'
import importlib.metadata as metadata

names = sorted(d.metadata["Name"].lower() for d in metadata.distributions())
print("an agent's installation:", ", ".join(names))
heavy = {"pyside6", "pyside6-essentials", "pyqtgraph", "sqlalchemy", "alembic", "apache-tvm", "onnx", "ziglang"}
assert not heavy & set(names), heavy & set(names)
PYTHON
