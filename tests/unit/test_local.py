"""Passwords of the loopback listener."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import AccessError
from fleetui.common.trust.local import check_local_password, load_or_create_secret, local_password


def test_the_secret_is_made_once_and_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "local.secret"
    secret = load_or_create_secret(path)
    assert len(secret) == 32
    assert load_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["local.secret"]


def test_many_who_start_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "local.secret"
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: load_or_create_secret(path), range(32)))
    assert len(secrets) == 1


@pytest.mark.parametrize("content", ["", "zz", "ab" * 31, "ab" * 33])
def test_a_damaged_secret_is_said_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "local.secret"
    path.write_text(content)
    with pytest.raises(AccessError, match="damaged"):
        load_or_create_secret(path)
    assert path.read_text() == content


@given(st.binary(min_size=32, max_size=32), st.text(max_size=80), st.text(max_size=80))
def test_a_password_opens_one_client_only(secret: bytes, mine: str, other: str) -> None:
    password = local_password(secret, mine).encode()
    assert check_local_password(secret, mine, password)
    assert check_local_password(secret, other, password) == (mine == other)
    assert not check_local_password(secret, mine, password[:-1])
    assert not check_local_password(secret, mine, b"")
