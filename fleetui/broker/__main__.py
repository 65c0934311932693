"""``python -m fleetui.broker``: what ``fleetui broker`` does, without the other rooms."""

from __future__ import annotations

import argparse
import sys

from fleetui.broker import cli

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="fleetui broker", description="The embedded MQTT broker.")
    cli.configure(parser)
    sys.exit(cli.run(parser.parse_args()))
