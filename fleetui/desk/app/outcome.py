"""How one run of a child process ended, and what became of the child, in words. No I/O."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from fleetui.common.domain.states import ChildState


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended. ``code`` as ``Popen.returncode``: negative for a signal; None if it never began."""

    code: int | None
    ran_s: float
    was_ready: bool
    asked: bool  # we wanted it to end
    complaint: str = ""  # what it said itself: its own sentence, or its last line on stderr
    timed_out: bool = False  # it did not become ready in time and was ended

    @property
    def how(self) -> str:
        """In a few words: ``killed by signal 9``, ``exit code 1``."""
        if self.timed_out:
            return "it did not become ready in time"
        if self.code is None:
            return "it could not be started"
        if self.code < 0:
            return f"killed by signal {-self.code}{_signal_name(-self.code)}"
        return f"exit code {self.code}" if self.code else "it ended by itself"


def _signal_name(number: int) -> str:
    known = {signal.SIGSEGV: ", a crash", signal.SIGABRT: ", an abort", signal.SIGBUS: ", a crash"}
    try:
        return known.get(signal.Signals(number), "")
    except ValueError:
        return ""


def sentence(title: str, state: ChildState, outcome: Outcome | None, wait_s: float, comfort: str) -> str:
    """What happened to a child, for people. ``comfort`` is what a restart of it does not cost."""
    name = title[:1].upper() + title[1:]
    if state is ChildState.RUNNING and outcome is not None:
        tail = f"; {comfort}" if comfort else ""
        return f"{name} stopped ({outcome.how}) and was started again{tail}"
    if state is ChildState.BACKING_OFF and outcome is not None:
        when = "at once" if wait_s < 1 else f"in {wait_s:.0f} s"
        return f"{name} stopped ({outcome.how}); it is started again {when}"
    if state is ChildState.FAILED and outcome is not None:
        said = f": {outcome.complaint.rstrip('.')}" if outcome.complaint else ""
        return f"{name} does not stay up ({outcome.how}){said}"
    return {
        ChildState.STOPPED: f"{name} is stopped",
        ChildState.STARTING: f"{name} is starting",
        ChildState.RUNNING: f"{name} is running",
        ChildState.STOPPING: f"{name} is stopping",
        ChildState.BACKING_OFF: f"{name} waits to be started again",
        ChildState.FAILED: f"{name} does not stay up",
    }[state]
