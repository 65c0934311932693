"""``python3 -m fleetui``: the same as the ``fleetui`` command; from a checkout it installs what it needs first."""

import sys

from fleetui.bootstrap import ensure

if __name__ == "__main__":
    ensure("fleetui", ["msgspec", "numpy", "paho", "sqlalchemy", "alembic", "PySide6", "pyqtgraph"], ["desk"])
    from fleetui.cli import main

    sys.exit(main())
