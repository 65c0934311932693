"""Calls one of our functions in a process that may not eat the machine.

``call("module:function", {…}, limits)`` starts a fresh interpreter in a session of its own, which limits its
memory, CPU time and files before it imports anything heavy, calls the function with the JSON arguments and prints
what it returns as one line of JSON. Whatever happens to it (a crash, a hang, a flood of words) ends here in an
exception with a sentence; the whole group is killed, and nothing is left running. It dies with its parent, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

from fleetui.common.domain.errors import BugError, OperatorError
from fleetui.workshop import errors
from fleetui.workshop.inspect.limits import Limits, human

LOG_TAIL = 4000
_QUIET = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow", "TORCH_DISABLE_ADDR2LINE": "1",
}  # fmt: skip


def call(
    function: str, arguments: dict[str, Any], limits: Limits, *, size: int = 0, subject: str = "the file"
) -> Any:
    """``size``: the file's, on which the memory ceiling depends; ``subject``: its name, for sentences."""
    request = json.dumps(
        {
            "function": function,
            "arguments": arguments,
            "memory": limits.address_space(size),
            "cpu": limits.cpu,
            "written": limits.written,
        }
    )
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fleetui.workshop.inspect.child", request],
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **_QUIET},
            start_new_session=True,
        )
        late = threading.Event()

        def expire() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(limits.wall, expire)
        timer.start()
        try:
            assert process.stdout is not None
            said = process.stdout.read(limits.said + 1)
            if len(said) <= limits.said:
                process.wait()
        finally:
            timer.cancel()
            _kill(process)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
            code = process.wait()
            timer.join()
        if late.is_set():
            raise errors.LimitError(
                f"Reading {subject} took more than {limits.wall:.0f} seconds and was stopped",
                "The file is damaged, or too large to be looked at here",
            )
        if len(said) > limits.said:
            raise errors.LimitError(
                f"What there is to say about {subject} exceeds {human(limits.said)}",
                "The file is damaged or hostile",
            )
        return _answer(said, code, log, subject, limits)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The child and whatever it started. Its group outlives it only as long as somebody is in it."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()


def _answer(said: bytes, code: int, log: IO[bytes], subject: str, limits: Limits) -> Any:
    line = said.strip().rpartition(b"\n")[2]
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "kind" not in answer:
        raise _died(code, _tail(log), subject, limits)
    if answer["kind"] == "result":
        return answer["value"]
    if answer["kind"] == "bug":
        raise BugError(f"while reading {subject}: {answer['text']}")
    raise rebuild(answer)


def rebuild(answer: dict[str, Any]) -> OperatorError:
    """The error that was raised in the child, by its stable code."""
    code, sentence, fix = str(answer.get("code")), str(answer.get("sentence")), str(answer.get("fix", ""))
    if code == "missing-extra":
        missing = errors.MissingExtra("", str(answer.get("extra", "")))
        missing.sentence, missing.fix, missing.args = sentence, fix, (sentence, fix)
        return missing
    if code == "unsupported":
        return errors.UnsupportedError(
            sentence, fix, operator=str(answer.get("operator", "")), node=str(answer.get("node", ""))
        )
    kinds = (
        errors.ModelError, errors.HostileModel, errors.ShapeError, errors.TargetError, errors.LimitError,
        errors.ToleranceError, errors.WorkshopError,
    )  # fmt: skip
    for kind in kinds:
        if kind.code == code:
            return kind(sentence, fix)
    return OperatorError(sentence, fix)


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - LOG_TAIL))
    return log.read().decode("utf-8", "replace")


def _died(code: int, tail: str, subject: str, limits: Limits) -> OperatorError:
    number = -code
    if hasattr(signal, "SIGXCPU") and number == signal.SIGXCPU:
        return errors.LimitError(
            f"Reading {subject} took more than {limits.cpu:.0f} seconds of computing and was stopped",
            "The file is damaged, or too large to be looked at here",
        )
    if "bad_alloc" in tail or "MemoryError" in tail or "out of memory" in tail.lower() or number == signal.SIGKILL:
        return errors.LimitError(
            f"Reading {subject} needed more memory than it may have",
            "The file is damaged, or too large to be looked at here",
        )
    how = f"crashed ({signal.Signals(number).name})" if 0 < number < 65 else f"ended with code {code}"
    last = next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")
    words = f": {last:.200}" if last else ""
    return errors.ModelError(
        f"The reader of {subject} {how}{words}", "The file is damaged or hostile: export or copy the model again"
    )
