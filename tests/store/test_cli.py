"""``fleetui store …`` as an operator runs it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from fleetui.common.domain.clock import ManualClock
from fleetui.store import cli, schema
from fleetui.store.store import Store
from tests.store.history import T0, fill


def fleetui_store(*arguments: object) -> int:
    parser = argparse.ArgumentParser(prog="fleetui store")
    cli.configure(parser)
    return cli.run(parser.parse_args([str(each) for each in arguments]))


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert fleetui_store(*arguments, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    return json.loads(out)


def test_info_says_what_is_in_it(store: Store, store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store)
    found = answer(capsys, "info", "--store", store_url)
    assert found["schema"] == schema.HEAD
    assert found["dialect"] == store.dialect
    assert found["devices"] == 4
    assert found["rows"]["inference_window"] == 15
    assert found["leases"] == {"lead": {"holder": "s", "term": 1, "expires": T0 + 15}}
    assert found["bytes"] > 100_000
    assert fleetui_store("info", "--store", store_url) == 0
    out = capsys.readouterr().out
    assert "devices        4" in out
    assert "  inference_window   15" in out


def test_backup_and_restore(
    store: Store, store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store)
    file = tmp_path / "b.fleetbak"
    saved = answer(capsys, "backup", file, "--store", store_url)
    assert saved["bytes"] == file.stat().st_size
    base = tmp_path / "base"
    restored = answer(capsys, "restore", file, "--base-dir", base)
    assert restored["rows"] == saved["rows"]
    assert answer(capsys, "info", "--base-dir", base)["devices"] == 4
    assert fleetui_store("restore", file, "--base-dir", base) == 1
    assert "replace it with --force" in capsys.readouterr().err
    assert answer(capsys, "restore", file, "--base-dir", base, "--force")["rows"] == saved["rows"]


def test_check_finds_and_says(store: Store, store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store)
    assert answer(capsys, "check", "--store", store_url)["problems"] == []
    store.write(lambda c: c.execute(text("UPDATE device SET seq = 1000000")))
    assert fleetui_store("check", "--store", store_url) == 1
    assert "no device was written after the last change: 4" in capsys.readouterr().out


def test_upgrade_says_the_schema(store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "upgrade", "--store", store_url)["schema"] == schema.HEAD


def test_what_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("info", "check", "upgrade"):
        assert fleetui_store(command, "--base-dir", tmp_path) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("There is no store at")
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "fleetui.db").exists()


def test_stopping_it_is_no_traceback(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.backup, "backup", stop)
    assert fleetui_store("backup", tmp_path / "b", "--store", store_url) == 1
    assert capsys.readouterr().err == "Stopped; nothing was changed.\n"


def test_a_damaged_file_can_be_checked_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "base"
    answerable = Store.open(f"sqlite:///{tmp_path / 'good.db'}", clock=ManualClock())
    with answerable as store:
        fill(store)
    file = tmp_path / "b"
    answer(capsys, "backup", file, "--store", f"sqlite:///{tmp_path / 'good.db'}")
    base.mkdir()
    (base / "fleetui.db").write_bytes(b"rubbish " * 1000)
    assert fleetui_store("check", "--base-dir", base) == 1
    assert "fleetui store restore FILE --force" in capsys.readouterr().err
    assert answer(capsys, "restore", file, "--base-dir", base, "--force")["rows"] > 0
    assert answer(capsys, "check", "--base-dir", base)["problems"] == []
