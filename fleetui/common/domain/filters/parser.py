"""Tokens to a tree. Checks field names and operators against a catalogue; values are read by ``operands``.

Recursive descent over the grammar in the package's docstring; nesting is bounded, so that no text can exhaust
the stack. Raises only :class:`FilterError`.
"""

from __future__ import annotations

from fleetui.common.domain.filters.errors import did_you_mean, failure
from fleetui.common.domain.filters.fields import Catalogue, Field
from fleetui.common.domain.filters.lexer import T, Token, lex
from fleetui.common.domain.filters.tree import (
    ORDERING,
    All,
    Comparison,
    Exists,
    Node,
    Not,
    Op,
    Search,
    Value,
    both,
    either,
)

MAX_DEPTH = 50
HAS, MISSING = "has", "missing"

_STARTS = frozenset({T.WORD, T.STRING, T.OPEN, T.NOT})
_WORDS = frozenset({T.WORD, T.STRING, T.AND, T.OR, T.NOT})  # after an operator a keyword is a word


def parse_tree(text: str, catalogue: Catalogue) -> Node:
    """The tree of ``text`` in normal form."""
    return _Parser(lex(text), catalogue).whole()


class _Parser:
    def __init__(self, tokens: list[Token], catalogue: Catalogue) -> None:
        self._tokens = tokens
        self._catalogue = catalogue
        self._at = 0
        self._depth = 0

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._peek()
        if token.kind is not T.END:
            self._at += 1
        return token

    def whole(self) -> Node:
        if self._peek().kind is T.END:
            return All()
        node = self._any()
        token = self._peek()
        if token.kind is T.CLOSE:
            raise failure("A ')' closes nothing", "Remove it, or open a '(' before it", token.start, token.end)
        if token.kind is not T.END:
            raise self._misplaced(token)
        return node

    def _any(self) -> Node:
        items = [self._all()]
        while self._peek().kind is T.OR:
            self._take()
            items.append(self._all())
        return either(items)

    def _all(self) -> Node:
        items = [self._one()]
        while True:
            if self._peek().kind is T.AND:
                self._take()
            elif self._peek().kind not in _STARTS:
                return both(items)
            items.append(self._one())

    def _one(self) -> Node:
        token = self._peek()
        if token.kind in {T.NOT, T.OPEN}:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise failure(
                    f"The filter is nested more than {MAX_DEPTH} deep",
                    "Write it with fewer parentheses",
                    token.start,
                    token.end,
                )
            self._take()
            node = Not(self._one()) if token.kind is T.NOT else self._inside(token)
            self._depth -= 1
            return node
        if token.kind in {T.WORD, T.STRING}:
            return self._term()
        raise self._misplaced(token)

    def _inside(self, opened: Token) -> Node:
        if self._peek().kind is T.CLOSE:
            raise failure("There is nothing in these parentheses", "Remove them", opened.start, self._peek().end)
        node = self._any()
        if self._peek().kind is T.END:
            raise failure("A '(' is never closed", "Add a ')'", opened.start, opened.end)
        if self._peek().kind is not T.CLOSE:
            raise self._misplaced(self._peek())
        self._take()
        return node

    def _misplaced(self, token: Token) -> Exception:
        if token.kind is T.END:
            before = self._tokens[self._at - 1] if self._at else token
            return failure(
                f"After '{before.text}' something is missing", "Finish the filter", before.start, before.end
            )
        if token.kind is T.OP:
            return failure(
                f"'{token.text}' needs a field before it", "Write it like site:berlin", token.start, token.end
            )
        if token.kind is T.COMMA:
            return failure(
                "A comma stands only in a list", "Write lists like site:(berlin,paris)", token.start, token.end
            )
        return failure(f"'{token.text}' does not fit here", "Remove it or finish it", token.start, token.end)

    def _term(self) -> Node:
        name = self._take()
        if self._peek().kind is not T.OP:
            return Search(Value(name.parts, name.start, name.end))
        sign = self._take()
        op = Op(sign.text)
        if op is Op.IS and name.kind is T.WORD and name.text.casefold() in {HAS, MISSING}:
            fields = tuple(self._field(value.text, value.start, value.end).name for value in self._values(sign))
            return Exists(fields, present=name.text.casefold() == HAS)
        field = self._field(name.text, name.start, name.end)
        if not field.allows(op):
            known = " ".join(field.operators)
            raise failure(
                f"'{field.name}' cannot be compared with '{op}'", f"Use one of {known}", sign.start, sign.end
            )
        values = self._values(sign)
        if len(values) > 1 and op in ORDERING:
            raise failure(f"'{op}' takes one value, not a list", "Name one value", values[0].start, values[-1].end)
        if op is Op.EQUAL:
            values = tuple(Value((v.text,), v.start, v.end) for v in values)
        return Comparison(field.name, op, values, name.start, self._tokens[self._at - 1].end)

    def _field(self, name: str, start: int, end: int) -> Field:
        field = self._catalogue.find(name)
        if field is None:
            first = ", ".join(one.name for one in self._catalogue.fields[:4])
            fix = did_you_mean(name, self._catalogue.names(), f"Fields are {first} and others")
            raise failure(f"There is no field '{name}'", fix, start, end)
        return field

    def _values(self, sign: Token) -> tuple[Value, ...]:
        if self._peek().kind is not T.OPEN:
            return (self._value(sign),)
        opened = self._take()
        values: list[Value] = []
        while True:
            if self._peek().kind is T.CLOSE and not values:
                raise failure("The list is empty", "Name at least one value", opened.start, self._peek().end)
            values.append(self._value(sign))
            token = self._take()
            if token.kind is T.CLOSE:
                return tuple(values)
            if token.kind is T.END:
                raise failure("A '(' is never closed", "Add a ')'", opened.start, opened.end)
            # People write lists as they speak, too: (berlin or paris).
            if token.kind not in {T.COMMA, T.OR}:
                raise failure(
                    f"'{token.text}' does not fit into the list",
                    "Put a comma between values, and quotes around a value with spaces",
                    token.start,
                    token.end,
                )

    def _value(self, sign: Token) -> Value:
        token = self._peek()
        if token.kind not in _WORDS:
            if token.kind in {T.END, T.CLOSE}:
                raise failure(f"After '{sign.text}' a value is missing", "Add one", sign.start, sign.end)
            raise failure(
                f"'{token.text}' is not a value",
                "Put a value with special characters in quotes",
                token.start,
                token.end,
            )
        self._take()
        return Value(token.parts, token.start, token.end)
