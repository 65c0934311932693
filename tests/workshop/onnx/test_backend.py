"""The cases of the ``onnx`` package: a fixed, spread sample here; all of them in ``tests/bench``."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.helpers.onnx_backend import Case, Outcome, Ready, cases, ready, run_case, sample, summary
from tests.helpers.onnx_compiled import run_batches

SAMPLE = 150
COMPILED = 44


@pytest.fixture(scope="module")
def chosen() -> list[Case]:
    return sample(SAMPLE)


def test_there_are_as_many_cases_as_the_package_makes() -> None:
    kinds = Counter(case.kind for case in cases())
    assert kinds["node"] > 1500
    assert min(kinds[kind] for kind in ("simple", "pytorch-converted", "pytorch-operator", "real")) >= 9


def test_the_sample_is_spread_and_about_numbers(chosen: list[Case]) -> None:
    assert len({case.name for case in chosen}) == SAMPLE
    assert all(case.numbers for case in chosen)
    assert len({case.kind for case in chosen}) == 4
    assert len({case.name.split("_")[1] for case in chosen}) > 60


def test_none_is_wrong_and_enough_pass(chosen: list[Case]) -> None:
    outcomes = [run_case(case) for case in chosen]
    faults = [f"{o.verdict} {o.name}: {o.sentence}" for o in outcomes if o.verdict in {"wrong", "crashed"}]
    assert not faults, "\n".join(faults)
    refused = [o for o in outcomes if o.verdict == "refused"]
    assert all(len(o.sentence) > 30 and o.sentence.endswith(".") for o in refused)
    assert summary(outcomes)["share on numbers"] >= 0.85


def test_compiled_none_is_wrong_and_enough_pass() -> None:
    """In one shared object, built and called in a process of its own."""
    made = [ready(case) for case in sample(COMPILED)]
    outcomes = [entry for entry in made if isinstance(entry, Outcome)]
    run_batches([entry for entry in made if isinstance(entry, Ready)], COMPILED, outcomes.append, limit=100)
    faults = [f"{o.verdict} {o.name}: {o.sentence}" for o in outcomes if o.verdict in {"wrong", "crashed"}]
    assert not faults, "\n".join(faults)
    assert len(outcomes) == COMPILED
    assert summary(outcomes)["share on numbers"] >= 0.85


def test_a_wrong_answer_is_seen() -> None:
    case = next(c for c in cases() if c.name == "test_relu")
    assert run_case(case).verdict == "passed"
    off = run_case(case, lambda _graph, feeds: {"y": feeds["x"]})
    assert off.verdict == "wrong"
    kind = run_case(case, lambda _graph, feeds: {"y": feeds["x"].clip(0).astype("float64")})
    assert "float64" in kind.sentence
    crashed = run_case(case, lambda _graph, _feeds: {})
    assert crashed.verdict == "crashed"


def test_only_what_must_be_known_is_made_constant() -> None:
    by_name = {case.name: case for case in cases()}
    assert run_case(by_name["test_reshape_negative_dim"]).fixed == ("shape",)
    assert run_case(by_name["test_slice"]).fixed == ("axes", "ends", "starts", "steps")
    assert run_case(by_name["test_clip_example"]).fixed == ()
    assert run_case(by_name["test_nonzero_example"]).verdict == "refused"
