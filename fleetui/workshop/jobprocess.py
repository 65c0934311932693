"""The process of one job: a request on stdin, JSON lines on stdout, and nothing else of the parent's.

First line in: the request. After it, ``{"command": "stop"}`` asks to stop, and the end of stdin means that the
parent is gone, which stops the job too. Lines out: ``step`` reports, then ``done`` with the record or ``error``
with code, sentence and fix. Whatever the job started (the linker) lies in this process's group and ends with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import asdict
from typing import Any

from fleetui.common.child import ParentWatch, say
from fleetui.common.domain.errors import OperatorError
from fleetui.workshop.errors import Stopped, WorkshopError
from fleetui.workshop.job import Request, compile_model
from fleetui.workshop.progress import Progress, Step

log = logging.getLogger("fleetui.workshop")


def main() -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    request = Request.from_json(json.loads(_first_line()))
    progress = Progress(_say_step)
    watch = ParentWatch(progress.stop, lambda command: _obey(command, progress))
    watch.start()
    signal.signal(signal.SIGTERM, lambda *_: progress.stop())
    signal.signal(signal.SIGINT, lambda *_: progress.stop())
    # Libraries that print must not spoil the lines: their stdout becomes stderr.
    out = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(out, "w", encoding="utf-8")
    try:
        record = compile_model(request, progress)
    except OperatorError as error:
        say("error", **describe(error))
        return 1
    except MemoryError:
        say("error", code="limit", sentence="The job ran out of memory", fix="Give it more, or a smaller model")
        return 1
    except Exception as error:
        log.exception("a job failed in a way nobody foresaw")
        say(
            "error",
            code="bug",
            sentence=f"The compiler failed on this model: {type(error).__name__}: {str(error)[:300]}",
            fix="This is a fault of ours: report it with the model's structure and the log",
        )
        return 1
    say("done", record=record)
    return 0


def describe(error: OperatorError) -> dict[str, Any]:
    """An error as the fields of a line."""
    fields: dict[str, Any] = {"sentence": error.sentence, "fix": error.fix}
    fields["code"] = error.code if isinstance(error, WorkshopError) else "environment"
    fields["stopped"] = isinstance(error, Stopped)
    for name in ("operator", "node"):
        if getattr(error, name, ""):
            fields[name] = getattr(error, name)
    return fields


def _first_line() -> str:
    """By the raw descriptor: what follows belongs to the watch."""
    data = b""
    while not data.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(2)
        data += byte
    return data.decode()


def _say_step(step: Step) -> None:
    say("step", **{**asdict(step), "stage": step.stage.value})


def _obey(command: dict[str, Any], progress: Progress) -> None:
    if command.get("command") == "stop":
        progress.stop()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        code = main()
        sys.stdout.flush()
    os._exit(code)  # threads of the libraries must not hold up the end
