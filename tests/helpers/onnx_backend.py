"""The test cases that the ``onnx`` package generates and ships, run through the importer and some executor.

A case is ``passed`` if every output has the case's own dtype and shape and, within the case's own tolerance, its
numbers; ``refused`` if the importer said in a sentence why not; ``wrong`` or ``crashed`` otherwise. Many cases pass
as inputs what a static compiler must know (the shape of a Reshape, the axes of a reduction): those inputs, and no
others, are made constants, on the importer's own word, and the case is counted as ``fixed``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.onnx import import_source
from fleetui.workshop.frontends.onnx.call import NeedsConstant
from fleetui.workshop.frontends.onnx.reading import check
from fleetui.workshop.graph.ir import Array, Graph, run
from fleetui.workshop.options import InputSpec

ALL_NUMBERS = {*range(1, 8), *range(9, 14), 16, *range(17, 29)} - {8, 14, 15}
"""Element types but strings and complex numbers: floats of every width, integers, booleans."""
COMMON = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16}
"""The same without types below eight bits and eight-bit floats."""
Feeds = dict[str, Array]
Executor = Callable[[Graph, Feeds], dict[str, Array]]


_NOISE = (1e-3, 1e-6, "expects rounding noise of 2e-7 where the exact answer is 0")
NOISY: dict[str, tuple[float, float, str]] = {
    "test_dft_inverse": _NOISE,
    "test_dft_inverse_opset19": _NOISE,
    "test_attention_4d_causal_fp16_expanded": (2**-9, 1e-7, "expects the rounding of each step to float16"),
}
"""Cases whose own answers are less exact than ours, with the tolerance that shows it: counted apart."""


@dataclass
class Case:
    name: str
    kind: str
    load: Callable[[], Any]
    data: Callable[[Any], list[tuple[list[Any], list[Any]]]]
    rtol: float
    atol: float
    numbers: bool = True
    """All its tensors are of floats, integers or booleans."""
    common: bool = True
    """… and none of a type below eight bits or an eight-bit float."""


@dataclass
class Outcome:
    name: str
    verdict: str
    """``passed``, ``noisy`` (passed, but see ``NOISY``), ``refused``, ``wrong`` or ``crashed``."""
    sentence: str = ""
    fixed: tuple[str, ...] = ()
    numbers: bool = True
    common: bool = True


@dataclass
class Ready:
    """A case imported: what is left is to compute each set of data."""

    case: Case
    fixed: tuple[str, ...] = ()
    sets: list[tuple[Graph, Feeds, list[tuple[str, Array]]]] = field(default_factory=list)


# ---------------------------------------------------------------- cases


@cache
def cases() -> tuple[Case, ...]:
    """All of them, by name."""
    found = [*_node_cases(), *_stored_cases()]
    for case in found:
        model = case.load() if case.kind != "real" else None
        kinds = set(_types(model)) if model is not None else {1}
        case.numbers, case.common = kinds <= ALL_NUMBERS, kinds <= COMMON
    return tuple(sorted(found, key=lambda case: (case.kind, case.name)))


def light_models() -> list[Path]:
    import onnx

    return sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


def sample(count: int) -> list[Case]:
    """Evenly spread over all cases that are about numbers."""
    able = [case for case in cases() if case.numbers and case.kind != "real"]
    return [able[i * len(able) // count] for i in range(count)]


def _node_cases() -> Iterator[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators compute logarithms of zero and the like on purpose
        from onnx.backend.test.case.node import collect_testcases

        made = collect_testcases(None)
    for entry in made:
        yield Case(
            entry.name,
            "node",
            lambda entry=entry: entry.model,
            lambda _model, entry=entry: [(list(i), list(o)) for i, o in entry.data_sets],
            entry.rtol,
            entry.atol,
        )


def _stored_cases() -> Iterator[Case]:
    import onnx
    from onnx.backend.test.loader import load_model_tests

    for kind in ("simple", "pytorch-converted", "pytorch-operator", "real"):
        for entry in load_model_tests(kind=kind):
            if entry.model_dir is not None:
                folder = Path(entry.model_dir)
                model, data = folder / "model.onnx", lambda loaded, folder=folder: _stored_data(loaded, folder)
            else:
                model = Path(onnx.__file__).parent.parent / entry.url
                data = lambda loaded, model=model: _ramp_data(loaded, model)  # noqa: E731 - one of two of a kind
            yield Case(entry.name, kind, lambda model=model: onnx.load(str(model)), data, entry.rtol, entry.atol)


def _stored_data(model: Any, folder: Path) -> list[tuple[list[Any], list[Any]]]:
    weights = {weight.name for weight in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in weights]
    sets = []
    for place in sorted(folder.glob("test_data_set_*")):
        inputs = [_read(place / f"input_{i}.pb", value) for i, value in enumerate(given)]
        outputs = [_read(place / f"output_{i}.pb", value) for i, value in enumerate(model.graph.output)]
        sets.append((inputs, outputs))
    return sets


def _ramp_data(model: Any, path: Path) -> list[tuple[list[Any], list[Any]]]:
    """The light models come with the answer to a ramp from 0 to 1."""
    import onnx

    value = next(v for v in model.graph.input if v.name not in {t.name for t in model.graph.initializer})
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    ramp = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
    answer = onnx.TensorProto.FromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return [([ramp], [onnx.numpy_helper.to_array(answer)])]


def _read(path: Path, value: Any) -> Any:
    import onnx

    if not value.type.HasField("tensor_type"):
        return None
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def _types(model: Any) -> Iterator[int]:
    """Element types of everything that goes in or comes out; what is not a tensor counts as a type of its own."""
    for value in [*model.graph.input, *model.graph.output]:
        yield value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else -1


def _array(value: Any) -> Any:
    if value is None or isinstance(value, (list, tuple)):
        return None
    if hasattr(value, "data_type") and hasattr(value, "dims"):
        import onnx

        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)


# ---------------------------------------------------------------- one case


def ready(case: Case) -> Ready | Outcome:
    """Import it, or say why not."""
    model = case.load()
    made = Ready(case)
    fixed: set[str] = set()
    for inputs, outputs in case.data(model):
        weights = {weight.name for weight in model.graph.initializer}
        names = [value.name for value in model.graph.input if value.name not in weights]
        feeds = {
            name: array for name, value in zip(names, inputs, strict=False) if (array := _array(value)) is not None
        }
        try:
            graph, fixed = _imported(model, feeds, fixed)
        except ModelError as error:
            return _outcome(case, "crashed", f"a sound model is called broken: {error}")
        except UnsupportedError as error:
            return _outcome(case, "refused", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return _outcome(case, "crashed", f"{type(error).__name__}: {error}")
        wanted = [(value.name, _array(ref)) for value, ref in zip(model.graph.output, outputs, strict=False)]
        made.sets.append((graph, feeds, [(name, ref) for name, ref in wanted if ref is not None]))
    made.fixed = tuple(sorted(fixed))
    return made


def _imported(model: Any, feeds: Feeds, fixed: set[str]) -> tuple[Graph, set[str]]:
    specs = [
        InputSpec(value.name, feeds[value.name].shape)
        for value in model.graph.input
        if value.name in feeds and not _static(value)
    ]
    fixed = set(fixed)
    while True:
        try:
            copy = type(model).FromString(model.SerializeToString())
            graph = import_source(check(copy, None), specs, {name: feeds[name] for name in fixed})
        except NeedsConstant as error:
            more = set(error.roots) & set(feeds)
            if not more or more <= fixed:
                raise
            fixed |= more
            continue
        graph.verify()
        return graph, fixed


def _static(value: Any) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)


def judged(made: Ready, execute: Executor) -> Outcome:
    case = made.case
    verdict, sentence = "passed", ""
    for graph, feeds, wanted in made.sets:
        given = {value.name: feeds[value.name] for value in graph.inputs}
        try:
            got = execute(graph, given)
            got = {name: got[name] for name, _ in wanted}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return _outcome(case, "crashed", f"{type(error).__name__}: {error}", made.fixed)
        for name, ref in wanted:
            fault = difference(got[name], ref, case.rtol, case.atol)
            if not fault:
                continue
            rtol, atol, reason = NOISY.get(case.name, (0.0, 0.0, ""))
            if not reason or difference(got[name], ref, rtol, atol):
                return _outcome(case, "wrong", f"{name}: {fault}", made.fixed)
            verdict, sentence = "noisy", reason
    return _outcome(case, verdict, sentence, made.fixed)


def difference(got: Array, ref: Array, rtol: float, atol: float) -> str:
    """Empty where they agree: dtype and shape exactly, numbers within the tolerance."""
    if str(got.dtype) != str(ref.dtype):
        return f"is {got.dtype}, not {ref.dtype}"
    if got.shape != ref.shape:
        return f"has the shape {got.shape}, not {ref.shape}"
    if ref.dtype.kind == "V" or str(ref.dtype) in {"bfloat16", "int4", "uint4"}:
        if str(ref.dtype) == "bfloat16":
            rtol = max(rtol, 2**-6)  # two of its last places, as the package's own runner allows
        got, ref = got.astype(np.float32), ref.astype(np.float32)
    try:
        np.testing.assert_allclose(got, ref, rtol=rtol, atol=atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


def _outcome(case: Case, verdict: str, sentence: str, fixed: Sequence[str] = ()) -> Outcome:
    return Outcome(case.name, verdict, sentence, tuple(fixed), case.numbers, case.common)


def with_numpy(graph: Graph, feeds: Feeds) -> dict[str, Array]:
    return run(graph, feeds)


def with_doubles(graph: Graph, feeds: Feeds) -> dict[str, Array]:
    """In double precision throughout. The light models' weights are so regular that a thousand scores of 1e10 ought
    to be equal, and the softmax then shows which sum was rounded differently: nothing about the import."""
    twin = graph.copy()
    values = [*twin.inputs, *twin.constants(), *(out for node in twin.nodes for out in node.outputs)]
    for value in values:
        if value.dtype == "float32":
            value.dtype = "float64"
            value.data = None if value.data is None else value.data.astype(np.float64)
    return {name: array.astype(np.float32) for name, array in run(twin, _doubled(feeds)).items()}


def _doubled(feeds: Feeds) -> Feeds:
    return {name: array.astype(np.float64) for name, array in feeds.items()}


def run_case(case: Case, execute: Executor = with_numpy) -> Outcome:
    made = ready(case)
    return made if isinstance(made, Outcome) else judged(made, execute)


# ---------------------------------------------------------------- summary


def summary(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Counts, and the share passed among cases about numbers."""
    found = list(outcomes)
    counts = Counter(outcome.verdict for outcome in found)
    able = [outcome for outcome in found if outcome.numbers]
    common = [outcome for outcome in found if outcome.common]
    return {
        "run": len(found),
        "passed": counts["passed"],
        "passed with inputs made constant": sum(1 for o in found if o.verdict == "passed" and o.fixed),
        "passed beyond the case's own exactness": counts["noisy"],
        "refused": counts["refused"],
        "wrong": counts["wrong"],
        "crashed": counts["crashed"],
        "on numbers": len(able),
        "share on numbers": sum(o.verdict == "passed" for o in able) / max(1, len(able)),
        "share on common numbers": sum(o.verdict == "passed" for o in common) / max(1, len(common)),
    }
