"""``python -m fleetui.station``: the same as ``fleetui station``."""

import argparse
import sys

from fleetui.station.cli import configure, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="fleetui station", description="The control process of a fleet.")
    configure(parser)
    sys.exit(run(parser.parse_args()))
