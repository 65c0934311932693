"""The limited process behind ``sandbox.call``: ``python -m fleetui.workshop.inspect.child REQUEST``.

Ceilings are set before anything is imported that could be fooled. The real stdout is kept for the one answer:
whatever libraries print goes to stderr, whose last words the parent keeps.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
from typing import Any

from fleetui.common.child import ParentWatch
from fleetui.common.domain.errors import BugError, OperatorError

PR_SET_PDEATHSIG = 1
SIGKILL = 9


def main(request_text: str) -> int:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(request_text)
    _die_with_parent()
    ParentWatch(on_gone=lambda: os._exit(1)).start()
    _limit(int(request["memory"]), float(request["cpu"]), int(request["written"]))
    answer = _call(str(request["function"]), request["arguments"])
    with contextlib.suppress(BrokenPipeError):
        out.write(json.dumps(answer, default=str) + "\n")
        out.flush()
    # Frameworks' own ends (thread pools, static destructors) are none of our business, and may hang.
    os._exit(0)


def _call(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        return {"kind": "result", "value": getattr(importlib.import_module(module), name)(**arguments)}
    except OperatorError as error:
        return {
            "kind": "refused",
            "code": getattr(error, "code", ""),
            "sentence": error.sentence,
            "fix": error.fix,
            **{key: getattr(error, key) for key in ("operator", "node", "extra") if hasattr(error, key)},
        }
    except BugError as error:
        traceback.print_exc()
        return {"kind": "bug", "text": str(error)}
    except MemoryError:
        return {
            "kind": "refused",
            "code": "limit",
            "sentence": "Reading the file needed more memory than it may have",
            "fix": "The file is damaged, or too large to be looked at here",
        }
    except RecursionError:
        return _damaged("it is nested too deeply")
    except Exception as error:  # noqa: BLE001 - a stranger's file may make a parser raise anything
        traceback.print_exc()
        return _damaged(f"{type(error).__name__}: {error}".splitlines()[0][:300])


def _damaged(why: str) -> dict[str, Any]:
    return {
        "kind": "refused",
        "code": "bad-model",
        "sentence": f"The file cannot be read: {why}",
        "fix": "It is damaged or of an unusual make: export or copy the model again",
    }


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def _limit(memory: int, cpu: float, written: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the wall clock and the size ceilings remain
        return
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(cpu) + 1),
        (resource.RLIMIT_FSIZE, written),
    ):
        _, hard = resource.getrlimit(what)
        most = value + (5 if what == resource.RLIMIT_CPU else 0)  # at both at once it is killed without a word
        if hard != resource.RLIM_INFINITY:
            value, most = min(value, hard), min(most, hard)  # noqa: PLW2901 - the same ceiling, as far as allowed
        # macOS refuses some of them.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (value, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
