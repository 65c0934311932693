"""What can go wrong with a compiled model, in sentences."""

from __future__ import annotations

from fleetui.common.domain.errors import OperatorError


class LoadError(OperatorError):
    """The files of a variant are missing, damaged, or not for this machine."""


CODES: dict[int, tuple[str, str]] = {
    1: ("The model was called with a pointer that is missing", "Bind every input and output"),
    2: (
        "The model does not take so many rows at once",
        "See rows in its model.json, or compile it with --batch any",
    ),
    3: (
        "A buffer is not aligned",
        "Inputs and outputs need the alignment of their elements, the workspace 64 bytes",
    ),
    4: ("The threads given to the model failed", "Call it without a pool, or with an open one"),
    5: ("A kernel of the model gave up", "Its accelerator may be busy or missing: see its driver's log"),
}


class RunError(OperatorError):
    """A call did not succeed; ``code`` is that of ``fleet_model.h``."""

    def __init__(self, code: int) -> None:
        sentence, fix = CODES.get(code, (f"The model returned the unknown code {code}", "Compile it again"))
        super().__init__(sentence, fix)
        self.code = code
