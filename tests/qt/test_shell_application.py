"""The whole desk with real children: opens, follows, says what falls, ends in order; and its pictures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import ConfigError, StoreError
from fleetui.common.domain.states import ChildState
from fleetui.desk.app.feed import FeedStatus
from fleetui.desk.app.instance import Instance
from fleetui.desk.app.operations import Operation
from fleetui.desk.app.supervise import Note
from fleetui.desk.ui import system
from fleetui.desk.ui.application import DeskApplication
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.crash import CrashGuard
from fleetui.desk.ui.links import Links
from fleetui.store.records import Changes
from tests.helpers.qt import NOW, station_status
from tests.helpers.wait import wait_until

OFFSCREEN = "This plugin does not support propagateSizeHints"


def until(app: QApplication, condition: object, what: str, timeout: float = 30.0) -> None:
    wait_until(lambda: app.processEvents() or condition(), timeout, what)  # type: ignore[operator]


@pytest.fixture
def desk(tmp_path: Path, qapp: QApplication) -> Iterator[DeskApplication]:
    """A desk on a fresh folder, with its own broker and station."""
    made = DeskApplication(qapp, Instance.open(tmp_path / "base"))
    ended: list[bool] = []
    made.ended.connect(lambda: ended.append(True))
    made.show()
    yield made
    made.close()
    until(qapp, lambda: ended, "an orderly end")
    made.dispose()


def test_opens_reads_and_ends_with_everything_it_started(desk: DeskApplication, qapp: QApplication) -> None:
    assert desk.window.isVisible(), "the window does not wait for anything"
    until(qapp, lambda: desk.links["station"].status == "running", "a running station")
    until(qapp, lambda: desk.links["broker"].status == "connected", "a connected broker")
    until(qapp, lambda: desk.links["store"].status == "connected", "a store that is read")
    page = desk.window.page
    until(qapp, lambda: page._stack.currentWidget() is page._empty, "the word that there are no devices")
    children = [psutil.Process(desk.instance.supervisor.pid(name)) for name in ("broker", "station")]
    ended: list[bool] = []
    desk.ended.connect(lambda: ended.append(True))
    desk.window.close()
    assert desk.stopping.isVisible(), "it says what it waits for"
    assert desk.window.isVisible()
    until(qapp, lambda: ended, "an orderly end")
    assert not desk.window.isVisible()
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.faults
@pytest.mark.logs_warnings("station|killed|signal")
def test_a_killed_station_is_said_and_comes_back(desk: DeskApplication, qapp: QApplication) -> None:
    until(qapp, lambda: desk.links["station"].status == "running", "a running station")
    pid = desk.instance.supervisor.pid("station")
    os.kill(pid, signal.SIGKILL)
    until(qapp, lambda: desk.links["station"].status != "running", "the word that it fell")
    until(qapp, lambda: desk.links["station"].status == "running", "its return")
    assert desk.instance.supervisor.pid("station") not in {0, pid}
    notice = desk.context.notices.get("child:station")
    assert notice is not None
    assert "killed by signal 9" in notice.sentence
    assert "nothing was lost" in notice.sentence
    assert [t.notice.key for t in desk.window.notifications.toasts.toasts] == ["child:station"]


def test_closing_before_anything_has_begun(tmp_path: Path, qapp: QApplication) -> None:
    made = DeskApplication(qapp, Instance.open(tmp_path / "base"))
    ended: list[bool] = []
    made.ended.connect(lambda: ended.append(True))
    made.close()
    made.close()
    until(qapp, lambda: ended, "its end")
    made.dispose()
    assert ended == [True]


@pytest.mark.logs_warnings("cannot read the store")
def test_a_store_that_cannot_be_read_is_said(tmp_path: Path, qapp: QApplication) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "fleetui.db").write_bytes(b"this is no database" * 100)
    made = DeskApplication(qapp, Instance.open(base, overrides={"station.own": False}))
    ended: list[bool] = []
    made.ended.connect(lambda: ended.append(True))
    made.show()
    until(qapp, lambda: made.links["store"].status == "disconnected", "the word that it cannot be read")
    assert made.context.notices.get("store") is not None
    assert made.window.isVisible()
    made.close()
    until(qapp, lambda: ended, "its end")
    made.dispose()


@pytest.mark.logs_warnings("a bug in the|failed")
@pytest.mark.qt_log_ignore(OFFSCREEN)
def test_a_bug_in_an_operation_shows_the_dialog_and_one_can_go_on(tmp_path: Path, qapp: QApplication) -> None:
    guard = CrashGuard()
    guard.open_fault_file = lambda _path: ""  # type: ignore[method-assign]  # pytest's own handler stays in place
    made = DeskApplication(qapp, Instance.open(tmp_path / "base", overrides={"station.own": False}), guard)
    guard.owner = made
    ended: list[bool] = []
    made.ended.connect(lambda: ended.append(True))
    made.show()

    def work() -> None:
        raise LookupError("nobody expected this")

    Operation("Add up", work).start(made.context.operations)
    until(qapp, lambda: made._crash_dialog is not None, "the dialog")
    dialog = made._crash_dialog
    assert dialog is not None
    assert "LookupError: nobody expected this" in dialog.details.toPlainText()
    assert "operation “Add up”" in dialog.details.toPlainText()
    assert made.instance.settings.path is not None
    assert made.instance.settings.path.exists(), "the state was saved first"
    dialog.go_on.click()
    assert made._crash_dialog is None
    Operation("Say no", refuse).start(made.context.operations)
    until(qapp, lambda: made.context.notices.get("say:Say no: The disk is full") is not None, "a notice")
    assert made._crash_dialog is None, "an operator's error is no crash"
    made.close()
    until(qapp, lambda: ended, "its end")
    made.dispose()


def refuse() -> None:
    raise StoreError("The disk is full", "Free some space")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_closes_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """From a shell, with children: everything ends, and the exit code says that it went well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fleetui.cli", "--base-dir", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
    )  # fmt: skip
    try:
        me = psutil.Process(process.pid)
        wait_until(lambda: len(me.children()) >= 2, 40, "broker and station")
        children = me.children(recursive=True)
        process.send_signal(number)
        _, errors = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0, errors.decode()
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


# ---------------------------------------------------------------- links, from their three sources


def note(name: str, state: ChildState, sentence: str = "It is so", fix: str = "") -> Note:
    return Note(name, state, sentence, fix)


@pytest.fixture
def links(context: DeskContext) -> Links:
    made = Links(context, ("broker", "station"))
    made.feed(FeedStatus(ok=True, caught_up=True))
    return made


def test_own_children_come_first(links: Links) -> None:
    assert links["station"].status == "starting"
    links.note(note("station", ChildState.FAILED, "The station does not stay up", "Look at its log"))
    assert links["station"].status == "failed"
    assert links["station"].detail == "The station does not stay up. Look at its log."
    links.note(note("station", ChildState.BACKING_OFF))
    assert links["station"].status == "backing_off"


def test_broker_is_what_the_station_says_of_it(links: Links, context: DeskContext) -> None:
    for name in ("broker", "station"):
        links.note(note(name, ChildState.RUNNING))
    assert (links["broker"].status, links["station"].status) == ("connected", "running")
    assert links["broker"].detail == "127.0.0.1:18830"
    from dataclasses import replace

    refused = replace(station_status(NOW), link="refused", link_reason="bad password")
    context.take(Changes(seq=1, stations=(refused,)))
    assert links["broker"].status == "refused"
    assert "bad password" in links["broker"].detail


def test_a_station_that_is_not_heard_of_is_silent(links: Links, context: DeskContext) -> None:
    for name in ("broker", "station"):
        links.note(note(name, ChildState.RUNNING))
    assert isinstance(context.clock, ManualClock)
    context.clock.advance(120)
    context.ticked.emit()
    assert links["station"].status == "silent"
    assert context.commands.facts["station"] is False
    context.take(Changes(seq=1, stations=(station_status(NOW + 120),)))
    assert links["station"].status == "running"
    assert context.commands.facts["station"] is True


def test_store_that_cannot_be_read(links: Links, context: DeskContext) -> None:
    assert links["store"].status == "connected"
    links.feed(FeedStatus(False, False, "The disk is full", "Free some space"))
    assert (links["store"].status, links["store"].detail) == ("disconnected", "The disk is full. Free some space.")
    assert context.commands.facts["store"] is False
    links.feed(FeedStatus(ok=True, caught_up=False))
    assert links["store"].status == "reading"


def test_links_elsewhere(context: DeskContext) -> None:
    links = Links(context, ())
    links.refresh()
    assert (links["broker"].status, links["station"].status) == ("connected", "running")
    context.stations.clear()
    links.refresh()
    assert (links["broker"].status, links["station"].status) == ("unknown", "none")


# ---------------------------------------------------------------- can this machine show a window?


def test_a_missing_library_is_named_by_its_package() -> None:
    lacks = {"libxcb-cursor.so.0", "libEGL.so.1"}
    with pytest.raises(ConfigError) as caught:
        system.check({"DISPLAY": ":0"}, lambda library: library not in lacks)
    assert "sudo apt-get install libegl1 libxcb-cursor0" in caught.value.fix
    system.check({"DISPLAY": ":0"}, lambda _library: True)


def test_offscreen_needs_neither_screen_nor_xcb() -> None:
    system.check({"QT_QPA_PLATFORM": "offscreen"}, lambda library: "xcb" not in library.lower())


def test_no_screen_is_said() -> None:
    with pytest.raises(ConfigError, match="no screen"):
        system.check({}, lambda _library: True)


def test_every_library_that_qt_links_to_has_its_package() -> None:
    """Against what the installed Qt really asks for: a new Qt that needs more fails here, not at a user's."""
    import PySide6

    plugins = Path(PySide6.__file__).parent / "Qt" / "plugins" / "platforms" / "libqxcb.so"
    done = subprocess.run(["ldd", str(plugins)], capture_output=True, text=True, check=False, timeout=30)
    wanted = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    xcb = {library for library in wanted if library.startswith(("libxcb", "libxkbcommon", "libX11"))}
    assert len(xcb) >= 10
    indirect = {"libxcb-util.so.1"}  # comes with libxcb-image0
    assert xcb - indirect <= {*system.XCB, *system.ALWAYS}


# ---------------------------------------------------------------- the command line and its pictures


def fleetui(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetui.cli", *arguments],
        capture_output=True, text=True, check=False, timeout=110, env={**os.environ, **environment},
    )  # fmt: skip


def test_options_of_the_demo_without_the_demo_are_refused() -> None:
    done = fleetui("--devices", "5")
    assert done.returncode == 1
    assert "Add --demo" in done.stderr
    assert fleetui("--demo", "--devices", "0").returncode == 2


def test_no_display_is_a_sentence_not_an_abort(tmp_path: Path) -> None:
    environment = {
        k: v for k, v in os.environ.items() if k not in {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"}
    }
    done = subprocess.run(
        [sys.executable, "-m", "fleetui.cli", "--base-dir", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "DISPLAY is not set" in done.stderr or "apt-get install" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_desk_on_the_same_folder_is_refused(desk: DeskApplication) -> None:
    done = fleetui("--base-dir", str(desk.instance.base.root))
    assert done.returncode == 1
    assert "Another desk" in done.stderr


STATES = (
    "overview", "devices", "devices-filtered", "device", "settings", "palette", "shortcuts", "connections",
    "toasts", "notifications", "crash", "overview-empty", "devices-empty", "notifications-empty",
)  # fmt: skip


def test_screenshots_of_a_small_demo(tmp_path: Path) -> None:
    """The real thing: broker, station, simulated devices, and every picture in both sizes and themes."""
    pictures = tmp_path / "pictures"
    done = fleetui(
        "--base-dir", str(tmp_path / "base"), "--demo", "--devices", "8", "--seed", "5",
        "--screenshot", str(pictures),
        QT_QPA_PLATFORM="offscreen",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = sorted(pictures.glob("*.png"))
    names = {file.name for file in files}
    for state in STATES:
        for theme in ("light", "dark"):
            for size in ("1280x800", "1920x1080"):
                assert f"{state}-{theme}-{size}.png" in names
    for file in files:
        image = QImage(str(file))
        if not file.name.startswith("crash"):
            width, height = file.stem.rsplit("-", 1)[1].split("x")
            assert (image.width(), image.height()) == (int(width), int(height))
        middle = image.pixelColor(image.width() - 8, image.height() // 2).lightness()
        assert (middle > 128) == ("light" in file.name), f"{file.name} is not in its theme"
        colors = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
        assert len(colors) > 20, f"{file.name} is empty"
