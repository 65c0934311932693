"""``python -m fleet_sim.agent``."""

import sys

from fleet_sim.agent.cli import main

sys.exit(main())
