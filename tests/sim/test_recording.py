from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.common.domain.errors import ConfigError
from fleetui.common.link import recording
from fleetui.common.link.recording import Recording, RecordingWriter

records = st.lists(
    st.tuples(
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=60).filter(lambda t: len(t.encode("utf-8", "ignore")) <= 200),
        st.binary(max_size=300),
    ),
    max_size=40,
).filter(lambda rows: all(t.isprintable() for _, t, _ in rows))


def write(path: Path, rows) -> None:
    with RecordingWriter(path, {"fleet": "f", "seed": 3}) as writer:
        for at, topic, payload in rows:
            writer.add(at, topic.encode(), payload)
    assert writer.count == len(rows)


@given(records)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("r") / "a.rec"
    write(path, rows)
    reader = Recording(path)
    assert list(reader) == rows
    assert reader.complete
    assert not reader.problem
    assert reader.about == {"fleet": "f", "seed": 3}
    assert list(reader) == rows  # and again
    assert not path.with_name("a.rec.partial").exists()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(recording, "BLOCK_BYTES", 200)


@pytest.fixture
def sample(tmp_path, small_blocks):
    path = tmp_path / "a.rec"
    rows = [(float(i), f"fleet/f/up/d{i}/beat", bytes([i]) * i) for i in range(60)]
    write(path, rows)
    return path, rows


def test_a_cut_file_yields_a_whole_beginning(sample):
    path, rows = sample
    data = path.read_bytes()
    seen, refused = set(), []
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        try:
            reader = Recording(path)
        except ConfigError:
            refused.append(cut)
            continue
        got = list(reader)
        assert got == rows[: len(got)]
        assert not reader.complete
        assert reader.problem == f"cut off after {len(got)} messages"
        seen.add(len(got))
    assert len(seen) > 5  # the cuts fell into several blocks
    assert max(refused) < 60  # within the header


def test_no_flipped_bit_goes_unnoticed(sample):
    path, rows = sample
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 3):
        data[position] ^= 0x10
        path.write_bytes(data)
        data[position] ^= 0x10
        try:
            reader = Recording(path)
        except ConfigError:
            continue
        got = list(reader)
        assert got == rows[: len(got)]
        assert not reader.complete
        assert reader.problem


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("r") / "a.rec"
    write(path, [(1.0, "t", b"p")])
    good = path.read_bytes()
    for data in (junk, good[:-12] + junk):
        path.write_bytes(data)
        try:
            reader = Recording(path)
        except ConfigError:
            continue
        assert list(reader) == [(1.0, "t", b"p")]


def test_another_version_is_refused_in_a_sentence(sample):
    path, _ = sample
    data = bytearray(path.read_bytes())
    data[5] = 9
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="of version 9"):
        Recording(path)


def test_a_failed_recording_leaves_nothing(tmp_path):
    def fail() -> None:
        with RecordingWriter(tmp_path / "a.rec", {}) as writer:
            writer.add(1.0, b"t", b"p")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        RecordingWriter(tmp_path / "no" / "a.rec", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        Recording(tmp_path / "no.rec")
