"""``python -m fleet_sim``."""

import sys

from fleet_sim.cli import main

sys.exit(main())
