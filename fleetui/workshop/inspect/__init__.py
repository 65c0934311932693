"""What is this file, and what would it cost? Looks at models nobody vouches for, without trusting them.

``sniff`` decides by content which frontend reads a file; ``inspect_file`` has the frontend look at it in a limited
process, so that neither a bomb nor a crashing parser touches the caller. Nothing in a model is ever executed.
"""

from fleetui.workshop.inspect.limits import Limits
from fleetui.workshop.inspect.look import inspect_file
from fleetui.workshop.inspect.sniff import sniff
from fleetui.workshop.inspect.specs import parse_input, parse_inputs

__all__ = ["Limits", "inspect_file", "parse_input", "parse_inputs", "sniff"]
