"""The command line's own rules: what it says, where, and with which exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fleetui import __version__, cli
from fleetui.common.domain.errors import ConfigError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetui", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_version_and_help_go_to_stdout() -> None:
    assert run("--version").stdout == f"fleetui {__version__}\n"
    done = run("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_an_unknown_command_is_wrong_usage_with_a_suggestion() -> None:
    done = run("statoin")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "'fleetui station'" in done.stderr


@pytest.mark.parametrize("name", [n for n in cli.COMMANDS if n != "desk"])
def test_every_command_has_help_of_its_own(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: fleetui {name}")


def test_a_missing_part_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "thing", cli.Command("no_such_module_at_all", "station", "nothing"))
    assert cli.main(["thing"]) == 1
    assert "pip install 'fleetui[station]'" in capsys.readouterr().err


def test_an_operators_error_is_one_sentence_and_a_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Module:
        @staticmethod
        def configure(_parser: object) -> None: ...

        @staticmethod
        def run(_args: object) -> int:
            raise ConfigError("The port 1883 is taken", "Choose another with --port")

    monkeypatch.setitem(cli.COMMANDS, "thing", cli.Command("thing_module", "", "nothing"))
    monkeypatch.setitem(sys.modules, "thing_module", Module)  # type: ignore[arg-type]
    assert cli.main(["thing"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "fleetui: The port 1883 is taken. Choose another with --port.\n"
