r"""Text to tokens. Knows no fields and no grammar.

A word is a run of anything but white space, quotes, parentheses, commas and the operators' characters. Inside
quotes everything goes; ``\"``, ``\\`` and ``\*`` stand for the character itself. A star, quoted or not, is a
wildcard unless escaped. ``80 %`` is read as ``80%``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from fleetui.common.domain.filters.errors import failure

MAX_LENGTH = 4096
OPERATORS = ("!=", "<=", ">=", ":", "=", "<", ">", "~")
KEYWORDS = frozenset({"and", "or", "not"})

_SPACE = re.compile(r"\s+")
# An exclamation mark belongs to a word unless it begins "!=".
_WORD = re.compile(r"(?:[^\s\"(),:=<>~!]|!(?!=))+")
_PER_CENT = re.compile(r"\s+%(?=[\s(),]|$)")


class T(StrEnum):
    """Kinds of token."""

    WORD = "word"
    STRING = "string"
    OP = "operator"
    OPEN = "("
    CLOSE = ")"
    COMMA = ","
    AND = "and"
    OR = "or"
    NOT = "not"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """``parts`` is the meaning, split at wildcards; ``start`` and ``end`` say where it stands."""

    kind: T
    parts: tuple[str, ...]
    start: int
    end: int
    closed: bool = True  # False for a string whose closing quote is missing (lenient reading only)

    @property
    def text(self) -> str:
        return "*".join(self.parts)


def lex(text: str, *, lenient: bool = False) -> list[Token]:
    """All tokens and an END. ``lenient`` reads an unfinished string to the end of the text instead of raising."""
    if len(text) > MAX_LENGTH:
        raise failure(
            f"A filter has at most {MAX_LENGTH} characters", "Use fewer or shorter terms", MAX_LENGTH, len(text)
        )
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if space := _SPACE.match(text, at):
            at = space.end()
            continue
        token = _next(text, at, lenient=lenient)
        tokens.append(token)
        at = token.end
    tokens.append(Token(T.END, ("",), len(text), len(text)))
    return tokens


def _next(text: str, at: int, *, lenient: bool) -> Token:
    char = text[at]
    if char == '"':
        return _string(text, at, lenient=lenient)
    if char in "(),":
        return Token(T(char), (char,), at, at + 1)
    for op in OPERATORS:
        if text.startswith(op, at):
            return Token(T.OP, (op,), at, at + len(op))
    match = _WORD.match(text, at)
    if match is None:  # cannot happen: the classes above cover every character
        raise failure(f"{char!r} has no meaning here", "Put it in quotes", at, at + 1)
    word, end = match.group(), match.end()
    if word.casefold() in KEYWORDS:
        return Token(T(word.casefold()), (word,), at, end)
    if word[0].isdigit() and word[-1].isdigit() and (sign := _PER_CENT.match(text, end)):
        word, end = f"{word}%", sign.end()
    return Token(T.WORD, split_wild(word), at, end)


def split_wild(word: str) -> tuple[str, ...]:
    """Parts between stars; several stars in a row are one."""
    return tuple(re.sub(r"\*+", "*", word).split("*"))


def _string(text: str, start: int, *, lenient: bool) -> Token:
    parts: list[str] = []
    part: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            parts.append("".join(part))
            return Token(T.STRING, _squeeze(parts), start, at + 1)
        if char == "\\" and text[at + 1 : at + 2] in {'"', "\\", "*"}:
            at += 1
            part.append(text[at])
        elif char == "*":
            parts.append("".join(part))
            part = []
        else:
            part.append(char)
        at += 1
    if not lenient:
        raise failure("A quote is opened and never closed", 'Add a " at the end of the text', start, len(text))
    parts.append("".join(part))
    return Token(T.STRING, _squeeze(parts), start, len(text), closed=False)


def _squeeze(parts: list[str]) -> tuple[str, ...]:
    """Without the empty parts inside that several stars in a row leave."""
    inner = [p for p in parts[1:-1] if p]
    return (parts[0], *inner, parts[-1]) if len(parts) > 1 else (parts[0],)
