"""Settings: limits in sentences, what is kept, what is not lost, and the page in the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import BugError, ConfigError
from fleetui.desk.app.setting import Choice, Setting
from fleetui.desk.app.settings import Settings, docs_table
from fleetui.desk.app.settings_list import BEAT_S, BROKER_URL, CONFIRM, REFRESH_HZ, SETTINGS, THEME

DOCS = Path(__file__).parents[2] / "resources" / "docs" / "settings.md"


def settings_in(folder: Path, **values: object) -> Settings:
    path = folder / "settings.json"
    path.write_text(json.dumps({"version": 1, "values": {k.replace("__", "."): v for k, v in values.items()}}))
    return Settings.load(path)


def test_defaults_without_a_file(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "settings.json")
    assert settings.get(THEME) == "system"
    assert settings["fleet.beat_s"] == BEAT_S.default
    assert not settings.problems
    assert not (tmp_path / "settings.json").exists()


def test_what_is_set_is_there_again(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "settings.json")
    settings.set("appearance.theme", "dark")
    settings.set("desk.refresh_hz", 2)
    settings.remember("window.page", "devices")
    settings.save()
    again = Settings.load(tmp_path / "settings.json")
    assert (again.get(THEME), again.get(REFRESH_HZ), again.recall("window.page")) == ("dark", 2.0, "devices")
    assert not again.is_default("appearance.theme")


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "settings.json")
    settings.set("appearance.theme", "dark")
    settings.reset("appearance.theme")
    settings.set("fleet.beat_s", 10)
    assert json.loads((tmp_path / "settings.json").read_text())["values"] == {"fleet.beat_s": 10}


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, future__thing=[1, 2])
    settings.set("appearance.theme", "light")
    assert json.loads((tmp_path / "settings.json").read_text())["values"]["future.thing"] == [1, 2]


@pytest.mark.logs_warnings("setting fleet.beat_s")
def test_a_bad_value_is_a_problem_with_a_sentence_and_the_default_holds(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, fleet__beat_s="soon", appearance__theme="dark")
    assert settings.get(BEAT_S) == BEAT_S.default
    assert settings.get(THEME) == "dark"
    [problem] = settings.problems
    assert "Beat interval" in problem
    assert "1 to 3600" in problem


@pytest.mark.parametrize("text", ["", "[]", '{"values": 3}', '{"values": {}, "state": []'])
def test_a_damaged_file_is_put_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    settings = Settings.load(path)
    assert settings.get(THEME) == "system"
    assert len(settings.problems) == 1
    assert (tmp_path / "settings.damaged.json").read_text() == text
    settings.set("appearance.theme", "dark")
    assert Settings.load(path).get(THEME) == "dark"


def test_a_renamed_setting_is_found_under_its_old_name(tmp_path: Path) -> None:
    declared = (Setting("new.name", 5, "G", "L", "D", renamed_from=("old.name", "older.name")),)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"values": {"older.name": 7}}))
    settings = Settings.load(path, declared)
    assert settings["new.name"] == 7
    assert settings["old.name"] == 7
    settings.set("new.name", 8)
    assert json.loads(path.read_text())["values"] == {"new.name": 8}


def test_the_new_name_wins_over_the_old_one(tmp_path: Path) -> None:
    declared = (Setting("new.name", 5, "G", "L", "D", renamed_from=("old.name",)),)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"values": {"new.name": 1, "old.name": 2}}))
    assert Settings.load(path, declared)["new.name"] == 1


def test_two_of_one_name_are_a_bug() -> None:
    with pytest.raises(BugError):
        Settings(None, (Setting("a", 1, "G", "L", "D"), Setting("b", 1, "G", "L", "D", renamed_from=("a",))))


def test_observers_hear_of_changes_only() -> None:
    settings = Settings(None)
    heard: list[tuple[str, object]] = []
    everything: list[str] = []
    stop = settings.observe(lambda key, value: heard.append((key, value)), "appearance.theme")
    settings.observe(lambda key, _value: everything.append(key))
    settings.set("appearance.theme", "system")
    settings.set("appearance.theme", "dark")
    settings.set("fleet.beat_s", 9)
    stop()
    settings.set("appearance.theme", "light")
    assert heard == [("appearance.theme", "dark")]
    assert everything == ["appearance.theme", "fleet.beat_s", "appearance.theme"]


def test_an_override_is_not_written_and_gives_way_to_a_choice(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "settings.json")
    settings.override("appearance.theme", "dark")
    settings.set("fleet.beat_s", 9)
    assert settings.get(THEME) == "dark"
    assert "appearance.theme" not in json.loads((tmp_path / "settings.json").read_text())["values"]
    settings.set("appearance.theme", "light")
    assert settings.get(THEME) == "light"


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "nowhere" / "settings.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        settings.set("appearance.theme", "dark")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("appearance.theme", "pink", "one of"),
        ("fleet.beat_s", 0, "from 1 to 3600"),
        ("fleet.beat_s", True, "whole number"),
        ("desk.refresh_hz", 5, "from 0.2 to 4"),
        ("desk.refresh_hz", float("nan"), "from 0.2 to 4"),
        ("desk.confirm_destructive", "perhaps", "true or false"),
        ("broker.url", "http://broker", "mqtt://"),
        ("broker.url", "mqtt://broker:99999999", "mqtt://"),
        ("store.url", "mysql://x", "postgresql://"),
        ("fleet.name", "a fleet", "letters"),
        ("broker.port", 70000, "0 to 65535"),
        ("nothing.such", 1, "settings page"),
    ],
)
def test_what_is_refused_says_what_to_do(key: str, value: object, words: str) -> None:
    settings = Settings(None)
    with pytest.raises(ConfigError) as caught:
        settings.set(key, value)
    assert words in caught.value.fix


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("desk.confirm_destructive", "off", False),
        ("fleet.beat_s", "15", 15),
        ("desk.refresh_hz", "0.5", 0.5),
        ("broker.url", " mqtts://[::1]:8883 ", "mqtts://[::1]:8883"),
        ("store.url", "postgresql+psycopg://a@b/c", "postgresql+psycopg://a@b/c"),
    ],
)
def test_texts_from_a_command_line_are_read(key: str, value: str, wanted: object) -> None:
    settings = Settings(None)
    settings.set(key, value)
    assert settings[key] == wanted


_any = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)
)


@given(setting=st.sampled_from(SETTINGS), value=_any)
def test_whatever_is_read_is_of_the_settings_type_or_refused(setting: Setting[Any], value: object) -> None:
    try:
        read = setting.read(value)
    except ConfigError as error:
        said = (error.sentence, error.fix)
    else:
        said = ("read", "well")
        assert type(read) is type(setting.default)
        assert setting.read(read) == read
    assert all(said)


def test_every_setting_is_declared_whole() -> None:
    for setting in SETTINGS:
        assert setting.read(setting.default) == setting.default, setting.key
        assert setting.label[0].isupper()
        assert setting.description.endswith(".")
        assert setting.kind != "choice" or all(isinstance(c, Choice) and c.label for c in setting.choices)
    assert CONFIRM.kind == "flag"
    assert BROKER_URL.kind == "text"


def test_the_documents_list_every_setting() -> None:
    assert DOCS.read_text("utf-8") == docs_table(), (
        "run: python -m fleetui.desk.app.settings > resources/docs/settings.md"
    )


def test_groups_hold_every_setting_once() -> None:
    grouped = [s for _, members in Settings(None).groups() for s in members]
    assert sorted(s.key for s in grouped) == sorted(s.key for s in SETTINGS)
