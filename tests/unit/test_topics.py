"""Topics: what is built is parsed back, and nothing else is; matching is MQTT's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import Refusal, WireError
from fleetui.common.domain.values import is_id
from fleetui.common.link.topics import Down, Topics, Up, topic_matches

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
levels = st.sampled_from(["a", "b", "", "$x", "fleet", "up"])
TOPICS = Topics("berlin")


@given(ids, ids, st.sampled_from(Up), st.sampled_from(Down))
def test_what_is_built_is_parsed_back(fleet: str, device: str, up: Up, down: Down) -> None:
    topics = Topics(fleet)
    assert topics.parse_up(topics.up(device, up)) == (device, up)
    assert topics.parse_down(topics.down(device, down)) == (device, down)
    assert topic_matches(topics.all_up, topics.up(device, up))
    assert topic_matches(topics.all_down(device), topics.down(device, down))
    assert not topic_matches(topics.all_up, topics.down(device, down))
    assert not topic_matches(topics.all_down(device), topics.down("other-" + device[:50], down))


@given(st.lists(st.sampled_from(["fleet", "berlin", "up", "down", "d1", "beat", "ask", "+", "#", "", "x" * 65])))
def test_anything_else_is_refused_with_the_reason(parts: list[str]) -> None:
    topic = "/".join(parts)
    for parse, way, kinds in ((TOPICS.parse_up, "up", Up), (TOPICS.parse_down, "down", Down)):
        good = (
            len(parts) == 5 and parts[:3] == ["fleet", "berlin", way] and is_id(parts[3]) and parts[4] in set(kinds)
        )
        if good:
            assert parse(topic) == (parts[3], kinds(parts[4]))
        else:
            with pytest.raises(WireError) as caught:
                parse(topic)
            assert caught.value.reason is Refusal.TOPIC
            assert len(caught.value.detail) <= 120


@pytest.mark.parametrize(
    "topic",
    [
        "fleet/paris/up/d1/beat",
        "fleet/berlin/up/d1/beat/more",
        "fleet/berlin/up/d1",
        "fleet/berlin/up/../beat",
        "fleet/berlin/up/d1\n/beat",
        "fleet/berlin/up/d1/beat\n",
        "fleet/berlin/up//beat",
        "fleet/berlin/up/d1/BEAT",
        "Fleet/berlin/up/d1/beat",
        "/fleet/berlin/up/d1/beat",
        "",
    ],
)
def test_near_misses(topic: str) -> None:
    with pytest.raises(WireError):
        TOPICS.parse_up(topic)


def test_shared_topics() -> None:
    digest = "0123456789abcdef" * 4
    assert TOPICS.blob(digest) == f"fleet/berlin/blob/{digest}"
    assert TOPICS.trust("timestamp.json") == "fleet/berlin/trust/timestamp.json"
    for bad in ("", "x", digest.upper(), digest + "0", digest[:-1] + "/", digest + "\n"):
        with pytest.raises(ValueError, match=r".*"):
            TOPICS.blob(bad)


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a//c", True),
        ("A/b", "a/b", False),
    ],
)
def test_the_standards_examples(pattern: str, topic: str, matches: bool) -> None:
    assert topic_matches(pattern, topic) is matches


def _by_recursion(pattern: list[str], topic: list[str]) -> bool:
    """The definition, word for word."""
    if pattern == ["#"]:
        return True
    if not pattern or not topic:
        return not pattern and not topic
    if pattern[0] not in {"+", topic[0]}:
        return False
    if len(topic) == 1 and pattern[1:] == ["#"]:
        return True  # "a/#" matches "a"
    return _by_recursion(pattern[1:], topic[1:])


@given(
    st.lists(levels | st.just("+"), min_size=1, max_size=5),
    st.booleans(),
    st.lists(levels, min_size=1, max_size=5),
)
def test_matching_is_the_definition(pattern: list[str], rest: bool, topic: list[str]) -> None:
    wanted = [*pattern, "#"] if rest else pattern
    expected = _by_recursion(wanted, topic)
    if topic[0].startswith("$") and wanted[0] in {"+", "#"}:
        expected = False
    assert topic_matches("/".join(wanted), "/".join(topic)) is expected
