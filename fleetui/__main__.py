"""``python3 -m fleetui``: the same as the ``fleetui`` command; from a checkout it installs what it needs first."""

import sys

from fleetui.bootstrap import ensure

if __name__ == "__main__":
    needs = ["msgspec", "numpy", "paho"]
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        needs += ["sqlalchemy", "alembic", "PySide6", "pyqtgraph"]  # the desk; other commands name what they lack
    ensure("fleetui", needs, ["desk"])
    from fleetui.cli import main

    sys.exit(main())
