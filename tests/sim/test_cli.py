"""``fleet-sim`` on the command line: help, usage, sentences, lists, recordings."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from fleet_sim import cli
from fleet_sim.runner import processes_for
from fleet_sim.world.faults import KINDS
from fleetui.common.link.recording import Recording


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet_sim", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_names_every_option_and_command():
    done = run("--help")
    assert done.returncode == 0
    for word in (
        *("--devices", "--scenario", "--seed", "--broker", "--fleet", "--secret", "--certs", "--rate", "--clock"),
        *("--beat", "--window", "--control", "--processes", "record", "faults", "scenarios"),
    ):
        assert word in done.stdout
    assert "--part" not in done.stdout
    for command in ("record", "faults", "scenarios"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: fleet-sim {command}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--devices", "0"),
        ("--devices", "many"),
        ("--rate", "0"),
        ("--rate", "2", "--clock", "1@2*3"),
        ("--secret", "a", "--certs", "b"),
        ("--beat", "0"),
        ("--control", "pipe"),
        ("--no-such-thing",),
        ("record",),
        ("record", "--out", "x", "--hours", "-1"),
        ("faults", "more"),
    ],
)
def test_wrong_usage_is_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert caught.value.code == 2
    assert "usage: fleet-sim" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--scenario", "none"), "The scenario 'none' cannot be read"),
        (("--broker", "http://x"), "'http://x' is not the address of a broker"),
        (("--fleet", "a/b"), "'a/b' is not a fleet name"),
        (("--clock", "soon"), "'soon' is not a clock"),
        (("--secret", "/none"), "There is no secret at /none"),
        (("--certs", "/none", "--broker", "mqtts://x"), "There is no ca.crt in /none"),
        (("--broker", "mqtts://x"), "wants certificates"),
        (("--devices", "3", "--processes", "4"), "4 processes are more than 3 devices"),
        (("--devices", "200000"), "A fleet of 200000 devices cannot be simulated"),
        (("record", "--out", "/none/x", "--hours", "3", "--devices", "2"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, sentence, capsys):
    assert cli.main(list(arguments)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fleet-sim: ")
    assert sentence in printed.err
    assert printed.err.count("\n") == 1


def test_the_list_of_faults_is_complete(capsys):
    assert cli.main(["faults"]) == 0
    out = capsys.readouterr().out
    for kind in KINDS.values():
        assert f"{kind.name:<10} {kind.help}" in out
        assert all(p.name in out for p in kind.parameters)
    assert cli.main(["scenarios"]) == 0
    assert "storm" in capsys.readouterr().out
    assert cli.main(["scenarios", "demo"]) == 0
    assert "after 10 min" in capsys.readouterr().out
    assert cli.main(["scenarios", "nothing"]) == 1


def test_a_recording(tmp_path, capsys):
    path = tmp_path / "a.rec"
    arguments = ["record", "--devices", "5", "--hours", "6", "--out", str(path), "--fleet", "plant", "--seed", "3"]
    assert cli.main([*arguments, "--until", "1800000000"]) == 0
    recording = Recording(path)
    assert f"{len(list(recording))} messages of 5 devices over 6 h" in capsys.readouterr().out
    assert (recording.about["fleet"], recording.about["until"]) == ("plant", 1.8e9)
    assert cli.main([*arguments, "--control", "stdio"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shares = [line["share"] for line in lines if line["kind"] == "progress"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert (lines[-1]["kind"], lines[-1]["reason"]) == ("stopped", "done")


def test_a_second_process_above_2500():
    assert [processes_for(n) for n in (1, 2500, 2501, 10_000)] == [1, 1, 2, 2]


def test_people_are_spoken_to_in_sentences():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"mqtt://127.0.0.1:{sock.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet_sim", "--devices", "3", "--broker", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        while "connection refused" not in lines[-1] and len(lines) < 12:
            lines.append(process.stdout.readline())
        process.terminate()
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert lines[0] == "3 devices of the fleet 'main': A calm day\n"
    assert lines[1].startswith("0/3 connected, 0 messages/s")
    assert "connection refused" in lines[-1]
    assert rest.splitlines()[-1].startswith("stopped (a signal): 0 sent")
