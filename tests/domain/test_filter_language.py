"""Text to tree and back: lexer, parser, canonical text, errors, chips."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetui.common.domain.filters import DEVICES, Filter, FilterError, complete, parse
from fleetui.common.domain.filters.lexer import MAX_LENGTH, T, lex
from fleetui.common.domain.filters.parser import MAX_DEPTH, parse_tree
from fleetui.common.domain.filters.render import quote, render
from fleetui.common.domain.filters.tree import (
    All,
    And,
    Comparison,
    Exists,
    Node,
    Not,
    Op,
    Or,
    Search,
    Value,
    both,
    either,
)
from tests.helpers.domain import any_text, examples, nodes, soups, texts, trees, words


def tree(text: str) -> Node:
    return parse_tree(text, DEVICES)


def attempt(text: str) -> Filter | FilterError:
    try:
        return parse(text)
    except FilterError as error:
        return error


def is_(field: str, *words: str) -> Comparison:
    return Comparison(field, Op.IS, tuple(Value.of(word) for word in words))


# ---------------------------------------------------------------- round trips


@examples(400)
@given(trees)
def test_a_tree_written_and_read_is_the_same_tree(node: Node) -> None:
    assert tree(render(node)) == node


@examples(300)
@given(any_text)
def test_any_text_is_a_filter_or_a_filter_error_that_marks_a_place(text: str) -> None:
    found = attempt(text)
    if isinstance(found, FilterError):
        assert 0 <= found.position <= len(text)
        assert found.length >= 1
        assert found.position + found.length <= max(len(text), found.position + 1)
        assert found.sentence
        assert found.fix
    else:
        assert parse(found.canonical) == found
        assert parse(found.canonical).canonical == found.canonical
        assert found.text == text.strip()


@examples(300)
@given(words)
def test_any_word_survives_quoting(word: str) -> None:
    tokens = lex(quote((word,)))
    assert [t.kind for t in tokens[1:]] == [T.END]
    assert tokens[0].kind in {T.WORD, T.STRING}
    assert tokens[0].parts == (word,)


@examples(200)
@given(soups)
def test_tokens_stand_where_they_say_and_cover_the_text(text: str) -> None:
    tokens = lex(text, lenient=True)
    at = 0
    for token in tokens[:-1]:
        assert text[at : token.start].isspace() or at == token.start
        assert token.start < token.end
        at = token.end
    assert text[at:].strip() == ""
    assert tokens[-1].kind is T.END


# ---------------------------------------------------------------- meaning


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("", All()),
        ("  \n\t", All()),
        ("site:berlin", is_("site", "berlin")),
        ("SITE : berlin", is_("site", "berlin")),
        ("site:(berlin, paris or rome)", is_("site", "berlin", "paris", "rome")),
        ("site:or", is_("site", "or")),
        ("version:3", is_("model.version", "3")),
        ('"tag.my key":x', is_("tag.my key", "x")),
        ("tag.Line:x", is_("tag.Line", "x")),
        ("memory>80 %", Comparison("memory", Op.MORE, (Value.of("80%"),))),
        ("site=ber*", Comparison("site", Op.EQUAL, (Value.of("ber*"),))),
        ("site:ber**n", Comparison("site", Op.IS, (Value(("ber", "n")),))),
        (r'site:"a\*b*\"\\"', Comparison("site", Op.IS, (Value(("a*b", '"\\')),))),
        ("edge-1 site:a", And((Search(Value.of("edge-1")), is_("site", "a")))),
        ("a and b or c", Or((And((Search(Value.of("a")), Search(Value.of("b")))), Search(Value.of("c"))))),
        ("a and (b and c)", both(Search(Value.of(word)) for word in "abc")),
        ("not a b", And((Not(Search(Value.of("a"))), Search(Value.of("b"))))),
        ("not not a", Not(Not(Search(Value.of("a"))))),
        ("not (a or b)", Not(Or((Search(Value.of("a")), Search(Value.of("b")))))),
        ("a AND NOT b", And((Search(Value.of("a")), Not(Search(Value.of("b")))))),
        ("has:temp", Exists(("temp",), present=True)),
        ("MISSING:(mem,tag.x)", Exists(("memory", "tag.x"), present=False)),
        ('"has"', Search(Value.of("has"))),
        ("hey!", Search(Value.of("hey!"))),
        ("temp>-5", Comparison("temp", Op.MORE, (Value.of("-5"),))),
        ("seen<1h30m", Comparison("seen", Op.LESS, (Value.of("1h30m"),))),
    ],
)
def test_reads(text: str, node: Node) -> None:
    assert tree(text) == node


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("site : berlin   AND(status:offline)", "site:berlin and status:offline"),
        ("a or (b c)", "a or b and c"),
        ("(a or b) c", "(a or b) and c"),
        ('site:"berlin"', "site:berlin"),
        ('name:"press shop*"', 'name:"press shop*"'),
        ("tag.a:(x,y z)".replace("y z", '"y z"'), 'tag.a:(x,"y z")'),
        ("version<3 mem>80%", "model.version<3 and memory>80%"),
        ('"and"', '"and"'),
        ("id:*", "id:*"),
    ],
)
def test_writes(text: str, canonical: str) -> None:
    assert render(tree(text)) == canonical


@pytest.mark.parametrize(
    ("text", "marked", "says"),
    [
        ("sites:berlin", "sites", "Did you mean 'site'?"),
        ("a and memroy>80%", "memroy", "Did you mean 'memory'?"),
        ("foo:1", "foo", "Fields are"),
        ("status:onlin", "onlin", "Did you mean 'online'?"),
        ("status:quux", "quux", "It is one of unknown, online, late, offline"),
        ("status:on*", "on*", "never"),
        ("memory>lots", "lots", "80%"),
        ("memory>5ms", "5ms", "80%"),
        ("memory>1e999", "1e999", "too large"),
        ("cpu>nan", "nan", "not a number"),
        ("seen<5", "5", "needs its unit"),
        ("seen<5parsecs", "5parsecs", "no unit"),
        ("site<3", "<", "Use one of"),
        ("temp~6", "~", "Use one of"),
        ("temp>(5,6)", "5,6", "one value"),
        ("model.version<***", "***", "not a version"),
        ("site:", ":", "value is missing"),
        ("site: )", ":", "value is missing"),
        ("site:()", "()", "empty"),
        ("site:(a", "(", "never closed"),
        ("site:(a b)", "b", "comma"),
        ("site:(a,,b)", ",", "not a value"),
        ("site:a:b", ":", "needs a field"),
        ('site:""', '""', "missing:site"),
        ('""', '""', "nothing to look for"),
        (":x", ":", "needs a field"),
        ("(a", "(", "never closed"),
        ("a)", ")", "closes nothing"),
        ("()", "()", "nothing in"),
        ("a or", "or", "missing"),
        ("not", "not", "missing"),
        ("and a", "and", "does not fit"),
        ("a, b", ",", "list"),
        ('site:"berlin', '"berlin', "never closed"),
        ("has:nothing", "nothing", "no field"),
        ("tag.:x", "tag.", "no field"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, marked: str, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    error = caught.value
    assert text[error.position : error.position + error.length] == marked
    assert says in str(error)


def test_a_text_cannot_exhaust_the_stack_or_the_memory() -> None:
    parse("not " * MAX_DEPTH + "a")
    for text in ("not " * (MAX_DEPTH + 1) + "a", "(" * 2000, "a" * (MAX_LENGTH + 1), "not(" * 900):
        with pytest.raises(FilterError):
            parse(text)
    parse(" or ".join(["a"] * 500))


def test_joining_keeps_the_normal_form() -> None:
    a, b, c = (Search(Value.of(word)) for word in "abc")
    assert both([]) == All()
    assert both([All(), a]) == a
    assert both([a, All(), And((b, c))]) == And((a, b, c))
    assert either([a]) == a
    assert either([a, Or((b, c))]) == Or((a, b, c))


# ---------------------------------------------------------------- chips


@examples(200)
@given(trees)
def test_chips_together_are_the_filter_and_each_can_go_alone(node: Node) -> None:
    found = parse(render(node))
    chips = found.chips()
    assert parse(" and ".join(f"({chip.text})" for chip in chips)) == found
    assert all(chip.label for chip in chips)
    for i in range(len(chips)):
        rest = found.without(i).chips()
        assert rest == chips[:i] + chips[i + 1 :]
        assert found.replacing(i, chips[i].text) == found
    assert bool(found) == bool(chips)


def test_a_chip_says_field_operator_and_values() -> None:
    chips = parse('site:(berlin,paris) memory>80% not has:temp press (a or b) "tag.my key"!=x seen<5m').chips()
    assert [(c.field, c.operator, c.values, c.negated) for c in chips] == [
        ("site", ":", ("berlin", "paris"), False),
        ("memory", ">", ("80%",), False),
        ("temp", "has", ("temp",), True),
        ("", "search", ("press",), False),
        ("", "", (), False),
        ("tag.my key", "!=", ("x",), False),
        ("seen", "<", ("5m",), False),
    ]
    assert [c.simple for c in chips] == [True, True, True, True, False, True, True]
    assert [c.label for c in chips] == [
        "Site is berlin or paris",
        "Memory > 80%",
        "not: Temperature known",
        "“press”",
        "a or b",
        "Tag my key is not x",
        "Last seen < 5m",
    ]


def test_chips_are_added_replaced_and_not_doubled() -> None:
    found = parse("site:berlin")
    assert found.adding("status:offline").canonical == "site:berlin and status:offline"
    assert found.adding("SITE:berlin") == found
    assert found.adding("a or b").canonical == "site:berlin and (a or b)"
    assert parse("a or b").adding("c").canonical == "(a or b) and c"
    assert parse("").adding("c d").canonical == "c and d"
    assert parse("a b").replacing(0, "c d").canonical == "c and d and b"
    assert parse("a b").without(0).without(0) == parse("")
    with pytest.raises(FilterError):
        found.adding("nonsense:1")


def test_a_filter_knows_what_it_depends_on() -> None:
    found = parse("seen<5m and not (has:tag.line or version<3)")
    assert found.fields == {"seen", "tag.line", "model.version"}
    assert found.columns == {"last_seen", "tags", "version"}
    assert found.ages
    assert parse("edge").columns == {"name", "device", "site"}
    assert not parse("edge site:a").ages
    assert parse("").columns == frozenset()


# ---------------------------------------------------------------- completion

KNOWN = {"site": ["Berlin", "New York", "Paris"], "tag.": ["line", "my key"], "name": ["press 1"]}


def known(field: str) -> list[str]:
    return KNOWN.get(field, [])


def offered(text: str, cursor: int | None = None) -> list[str]:
    found = complete(text, len(text) if cursor is None else cursor, DEVICES, known)
    return [item.text for item in found.items]


@examples(300)
@given(any_text, st.integers(-3, 80))
def test_completion_never_fails_and_stays_inside(text: str, cursor: int) -> None:
    found = complete(text, cursor, DEVICES, known)
    place = min(max(cursor, 0), len(text))
    assert 0 <= found.start <= place
    assert found.start + found.length <= len(text)
    for item in found.items:
        assert item.text
        assert item.label
        done, at = found.apply(text, item)
        assert done[: found.start] == text[: found.start]
        assert done[at:] == text[found.start + found.length :]


@examples(150)
@given(nodes, st.data())
def test_what_is_offered_for_a_part_of_a_good_filter_continues_it(node: Node, data: st.DataObject) -> None:
    text = render(node)
    cursor = data.draw(st.integers(0, len(text)))
    found = complete(text[:cursor], cursor, DEVICES, known)
    for item in found.items:
        done, _ = found.apply(text[:cursor], item)
        result = attempt(done)
        # Unfinished is fine, nonsense is not.
        if isinstance(result, FilterError):
            assert "no field" not in result.sentence, done
            assert "cannot be compared" not in result.sentence, done


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("si", "site:"),
        ("memo", "memory"),
        ("mem", "memory<"),
        ("site", "site:"),
        ("site:", "Berlin"),
        ("site:n", '"New York"'),
        ("site:(Berlin,", '"New York"'),
        ("site:(Berlin", "Berlin"),
        ("site:(Berlin ", ","),
        ("status:l", "late"),
        ("site:Berlin ", "and"),
        ("site:Berlin a", "agent:"),
        ("memory>8", "8%"),
        ("latency.p99>", "20ms"),
        ("seen<", "5m"),
        ("has:te", "temp"),
        ("tag.l", "tag.line:"),
        ("tag.m", '"tag.my key":'),
        ("tag.line", "tag.line:"),
        ("not s", "site:"),
        ('name:"p', '"press 1"'),
        ("has", "has:"),
    ],
)
def test_offers(text: str, first: str) -> None:
    assert offered(text)[0] == first


def test_a_word_under_the_cursor_is_replaced_whole() -> None:
    found = complete("sit:berlin", 2, DEVICES, known)
    assert (found.start, found.length) == (0, 3)
    done, cursor = found.apply("site:ber and x", found.items[0])
    assert done.startswith("site:")
    assert cursor == 5
    found = complete("site:ber and x", 6, DEVICES, known)
    assert (found.start, found.length) == (5, 3)
    assert found.apply("site:ber and x", found.items[0]) == ("site:Berlin and x", 11)


def test_values_already_in_a_list_are_not_offered_again() -> None:
    assert offered("site:(berlin,") == ['"New York"', "Paris"]
    assert "temp" not in offered("has:(temp,")


@examples(100)
@given(texts)
@example("*")
def test_a_known_value_is_offered_so_that_it_means_itself(value: str) -> None:
    for item in complete("site:", 5, DEVICES, lambda _field: [value]).items:
        assert tree(f"site:{item.text}") == is_("site", value)
