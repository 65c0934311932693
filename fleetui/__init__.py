"""FleetUI: a self-hosted control room for machine learning on edge devices.

This package imports nothing at import time, so that ``python3 -m fleetui`` can say what is missing
on a machine where nothing is installed yet.
"""

__version__ = "0.1.0"
