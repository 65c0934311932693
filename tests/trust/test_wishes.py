"""A wish's signature: it holds for exactly what was wished, by whom and when, and for nothing else."""

from __future__ import annotations

import json
import math
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import AccessError
from fleetui.common.trust.wishes import (
    Operator,
    known_operators,
    public_line,
    read_public,
    sign_wish,
    signed_bytes,
    verify_wish,
)

AT = 1_800_000_000.25
WISH: dict[str, Any] = {
    "identity": "3f" * 16,
    "kind": "rollout.start",
    "arguments": {"version": "1.2", "devices": ["a", "b"], "share": 0.1, "force": False, "note": None, "count": 3},
    "at": AT,
}


@pytest.fixture(scope="module")
def operator() -> Operator:
    return Operator.create("Operator One")


def _sign(operator: Operator, **changes: Any) -> bytes:
    return sign_wish(operator, **WISH | changes)


def _verify(operator: Operator, signature: bytes, **changes: Any) -> None:
    keys = {operator.name: operator.public_key}
    verify_wish(keys, **{"operator": operator.name, "signature": signature} | WISH | changes)


def test_the_signed_bytes_are_the_documented_ones() -> None:
    signed = signed_bytes("Jo\u00e9", "id1", "k", {"b": 1, "a": [1.5, True, None, "x\n"]}, 12.0004)
    assert signed == (
        b'fleetui wish v1\x00{"arguments":{"a":[1.5,true,null,"x\\n"],"b":1},'
        b'"at_ms":12000,"id":"id1","kind":"k","operator":"Jo\\u00e9"}'
    )


def test_a_signed_wish_verifies_and_signing_is_repeatable(operator: Operator) -> None:
    signature = _sign(operator)
    assert len(signature) == 64
    assert _sign(operator) == signature
    _verify(operator, signature)


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "3f" * 15 + "40"},
        {"kind": "rollout.stop"},
        {"at": AT + 0.001},
        {"arguments": {}},
        {"arguments": WISH["arguments"] | {"share": 0.2}},
        {"arguments": WISH["arguments"] | {"force": 0}},
        {"arguments": WISH["arguments"] | {"count": 3.0}},
        {"arguments": WISH["arguments"] | {"count": "3"}},
        {"arguments": WISH["arguments"] | {"devices": ["b", "a"]}},
        {"arguments": WISH["arguments"] | {"more": None}},
    ],
)
def test_any_change_breaks_the_signature(operator: Operator, change: dict[str, Any]) -> None:
    signature = _sign(operator)
    with pytest.raises(AccessError, match="does not carry"):
        _verify(operator, signature, **change)


def test_the_order_of_arguments_does_not_matter(operator: Operator) -> None:
    backwards = OrderedDict(reversed(WISH["arguments"].items()))
    _verify(operator, _sign(operator), arguments=backwards)


def test_nobody_signs_for_another(operator: Operator) -> None:
    other = Operator.create("Operator Two")
    keys = {operator.name: operator.public_key, other.name: other.public_key}
    signature = sign_wish(other, **WISH)
    verify_wish(keys, operator=other.name, signature=signature, **WISH)
    with pytest.raises(AccessError, match="does not carry"):
        verify_wish(keys, operator=operator.name, signature=signature, **WISH)
    with pytest.raises(AccessError, match="no operator"):
        verify_wish(keys, operator="Operator Three", signature=signature, **WISH)
    # A key under another name: the name is signed too.
    with pytest.raises(AccessError, match="does not carry"):
        verify_wish({"Operator Three": other.public_key}, operator="Operator Three", signature=signature, **WISH)


@given(st.binary(max_size=80))
def test_rubbish_is_no_signature(operator: Operator, rubbish: bytes) -> None:
    with pytest.raises(AccessError):
        _verify(operator, rubbish)


def test_a_damaged_public_key_verifies_nothing(operator: Operator) -> None:
    with pytest.raises(AccessError):
        verify_wish({operator.name: b"short"}, operator=operator.name, signature=_sign(operator), **WISH)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)
_arguments = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _values, max_size=5)


@given(_arguments)
def test_what_was_stored_as_json_and_read_back_still_verifies(
    operator: Operator, arguments: dict[str, Any]
) -> None:
    signature = _sign(operator, arguments=arguments)
    _verify(operator, signature, arguments=json.loads(json.dumps(arguments)))


@given(_arguments, _arguments)
def test_different_wishes_are_different_bytes(one: dict[str, Any], two: dict[str, Any]) -> None:
    same = signed_bytes("o", "i", "k", one, AT) == signed_bytes("o", "i", "k", two, AT)
    assert same == (json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True))


class _Odd:
    pass


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    "bad",
    [
        math.nan,
        math.inf,
        2**53 + 1,
        b"bytes",
        _Odd(),
        {1: "number as key"},
        "\ud800",
        {"\udfff": 1},
        _deep(20),
        _deep(100_000),
        {"a"},
    ],
)
def test_what_has_no_canonical_form_is_refused(operator: Operator, bad: Any) -> None:
    with pytest.raises(AccessError):
        _sign(operator, arguments={"x": bad})
    with pytest.raises(AccessError):
        _verify(operator, b"\0" * 64, arguments={"x": bad})


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, 1e12])
def test_a_wish_needs_a_sensible_time(operator: Operator, at: float) -> None:
    with pytest.raises(AccessError):
        _sign(operator, at=at)


def test_a_huge_wish_is_refused(operator: Operator) -> None:
    with pytest.raises(AccessError, match="too large"):
        _sign(operator, arguments={"x": "y" * 300_000})


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("passphrase", [None, "korrekt pferd"])
def test_save_and_load(tmp_path: Path, operator: Operator, passphrase: str | None) -> None:
    operator.save(tmp_path, passphrase)
    assert stat.S_IMODE((tmp_path / "operator.key").stat().st_mode) == 0o600
    loaded = Operator.load(tmp_path, passphrase)
    assert (loaded.name, loaded.public_key) == (operator.name, operator.public_key)
    _verify(operator, sign_wish(loaded, **WISH))
    for wrong in (None if passphrase else "something", "other"):
        with pytest.raises(AccessError):
            Operator.load(tmp_path, wrong)
    assert "PRIVATE" not in repr(loaded)


def test_damaged_files_are_refused_with_a_sentence(tmp_path: Path, operator: Operator) -> None:
    with pytest.raises(AccessError, match="cannot be read"):
        Operator.load(tmp_path)
    operator.save(tmp_path)
    other = Operator.create("Operator One")
    (tmp_path / "operator.pub").write_bytes(public_line(other.name, other.public_key))
    with pytest.raises(AccessError, match="do not belong together"):
        Operator.load(tmp_path)
    operator.save(tmp_path)
    (tmp_path / "operator.key").chmod(0o640)
    with pytest.raises(AccessError, match="other users"):
        Operator.load(tmp_path)
    (tmp_path / "operator.key").chmod(0o600)
    (tmp_path / "operator.key").write_bytes(b"rubbish")
    with pytest.raises(AccessError, match="cannot be opened"):
        Operator.load(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"rubbish",
        b"\xff\xfe",
        b"fleetui-operator-ed25519 AAAA name\n",
        b"fleetui-operator-ed25519 !!!! name\n",
        b"ssh-ed25519 " + b"A" * 43 + b"= name\n",
        b"fleetui-operator-ed25519 " + b"A" * 43 + b"= \n",
        b"fleetui-operator-ed25519 " + b"A" * 43 + b"= two\nlines\n",
    ],
)
def test_rubbish_is_no_public_key(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.pub").write_bytes(line)
    with pytest.raises(AccessError, match="not an operator's public key"):
        read_public(tmp_path / "x.pub")


def test_known_operators_are_those_in_the_folder(tmp_path: Path, operator: Operator) -> None:
    assert known_operators(tmp_path) == {}
    other = Operator.create("Operator Two")
    for i, one in enumerate((operator, other)):
        (tmp_path / f"{i}.pub").write_bytes(public_line(one.name, one.public_key))
    assert known_operators(tmp_path) == {o.name: o.public_key for o in (operator, other)}
    (tmp_path / "9.pub").write_bytes(public_line(other.name, operator.public_key))
    with pytest.raises(AccessError, match="two different keys"):
        known_operators(tmp_path)


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "x" * 65, "\0"])
def test_names_are_one_line(name: str) -> None:
    with pytest.raises(AccessError):
        Operator.create(name)
