from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fleetui.common.basedir import BaseDir, default_base
from fleetui.common.domain.errors import ConfigError


def test_every_path_lies_under_the_base(tmp_path: Path) -> None:
    base = BaseDir.at(tmp_path / "new" / "place")
    paths = [base.settings, base.keys, base.broker, base.run, base.log, base.local_secret]
    assert all(base.root in p.parents for p in paths)
    assert str(base.root) in base.store_url
    assert all(p.is_dir() for p in (base.keys, base.broker, base.run, base.log))


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    assert stat.S_IMODE(BaseDir.at(tmp_path).keys.stat().st_mode) == 0o700


def test_a_place_that_is_a_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--base-dir"):
        BaseDir.at(tmp_path / "file")


def test_the_default_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_base() == tmp_path / "fleetui"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_base() == Path(os.path.expanduser("~")) / ".local/share/fleetui"  # noqa: PTH111 - the other way
