"""``--input NAME=SHAPE[:DTYPE]``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import ConfigError
from fleetui.workshop.inspect.specs import TAKEN, parse_input, parse_inputs
from fleetui.workshop.options import InputSpec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("data=1x3x224x224:float32", InputSpec("data", (1, 3, 224, 224), "float32")),
        ("data=1,3,8,8", InputSpec("data", (1, 3, 8, 8))),
        ("data=(4,)", InputSpec("data", (4,))),
        ("data=[1, 2]:f16", InputSpec("data", (1, 2), "float16")),
        ("serving_default_x:0=1x4", InputSpec("serving_default_x:0", (1, 4))),
        ("a=b=2X3:INT", InputSpec("a=b", (2, 3), "int32")),
        ("x=scalar:i64", InputSpec("x", (), "int64")),
    ],
)
def test_a_shape_is_read(text: str, spec: InputSpec) -> None:
    assert parse_input(text) == spec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data", "names no input"),
        ("=1x3", "names no input"),
        ("data=", "not a whole number"),
        ("data=1x?x3", "left open"),
        ("data=1xax3", "not a whole number"),
        ("data=0x3", "out of range"),
        ("data=1x99999999999", "out of range"),
        ("data=1x1x1x1x1x1x1x1x1", "9 dimensions"),
        ("data=1x3:flot32", "Did you mean float32"),
        ("data=1x3:string", "There are"),
        ("data=１x3", "not a whole number"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_input(text)
    assert words in str(caught.value)


def test_an_input_is_said_once() -> None:
    with pytest.raises(ConfigError, match="more than once"):
        parse_inputs(["a=1", "b=2", "a=3"])


@given(
    st.text(min_size=1, max_size=20).map(str.strip).filter(bool),
    st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=8),
    st.sampled_from(["", *TAKEN]),
)
def test_what_is_written_is_read_back(name: str, shape: list[int], dtype: str) -> None:
    text = f"{name}={'x'.join(map(str, shape))}" + (f":{dtype}" if dtype else "")
    assert parse_input(text) == InputSpec(name, tuple(shape), dtype)


@given(st.text(max_size=60))
def test_nothing_but_a_sentence_comes_of_nonsense(text: str) -> None:
    said: ConfigError | None = None
    try:
        parse_input(text)
    except ConfigError as error:
        said = error
    assert said is None or said.fix
