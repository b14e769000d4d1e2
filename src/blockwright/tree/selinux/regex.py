"""Regular expressions of file_contexts.

They are Perl's, over bytes, where a dot is any byte and the whole path has to match. What depends on more than that
(back references, assertions, options) is refused.

Knows: the language. Refuses to know: what a match means, and how it is found.

Source: pcre2pattern(3); file_contexts(5).
"""

from __future__ import annotations

import re
import string
from typing import Final

from blockwright.tree.automaton import ALL, ANY, Bytes, Either, Expression, Repeated, Sequenced

MAX_REGEX: Final = 4096
"""Bytes of an expression."""
MAX_GROUPS: Final = 64
"""Groups within one another."""
MAX_REPEAT: Final = 255

_ALPHA, _DIGIT = string.ascii_letters.encode(), string.digits.encode()
_SPACE: Final = b" \t\n\r\f\v"
_CLASSES: Final = {
    b"alpha": _ALPHA,
    b"digit": _DIGIT,
    b"alnum": _ALPHA + _DIGIT,
    b"upper": string.ascii_uppercase.encode(),
    b"lower": string.ascii_lowercase.encode(),
    b"space": _SPACE,
    b"blank": b" \t",
    b"punct": string.punctuation.encode(),
    b"xdigit": string.hexdigits.encode(),
    b"word": _ALPHA + _DIGIT + b"_",
    b"print": bytes(range(0x20, 0x7F)),
    b"graph": bytes(range(0x21, 0x7F)),
    b"cntrl": bytes([*range(0x20), 0x7F]),
}
_SHORT: Final = {ord("d"): _DIGIT, ord("w"): _CLASSES[b"word"], ord("s"): _SPACE}
_CONTROL: Final = {ord("t"): 9, ord("n"): 10, ord("r"): 13, ord("f"): 12, ord("a"): 7, ord("e"): 27}
_COUNT: Final = re.compile(rb"\{([0-9]{1,5})(,([0-9]{0,5}))?\}")
_HEX: Final = re.compile(rb"[0-9a-fA-F]{2}")


class Unusable(ValueError):
    """The expression is not of the language, or not of what is supported of it."""


def translate(text: bytes) -> tuple[bytes | None, Expression]:
    """Return the path that an expression is, where it is nothing more, and what it means. Raises Unusable."""
    if len(text) > MAX_REGEX:
        raise Unusable(f"expected at most {MAX_REGEX} bytes, found {len(text)}")
    body = text.removeprefix(b"^")
    if body.endswith(b"$") and not body.endswith(b"\\$"):
        body = body[:-1]
    parser = _Parser(body)
    found = parser.alternatives(0)
    if parser.at < len(body):
        raise Unusable("expected ( before the )")
    if isinstance(found, Either):
        raise Unusable("expected alternatives within brackets, where it is plain what they are of")
    if parser.empty(found):
        raise Unusable("expected an expression that does not match nothing")
    if parser.plain and isinstance(found, Sequenced):
        return b"".join([bytes(each.members) for each in found.parts if isinstance(each, Bytes)]), found
    return None, found


class _Parser:
    """``plain`` says that nothing but bytes was found: what libselinux takes for a path."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.at = 0
        self.plain = True

    def empty(self, expression: Expression) -> bool:
        """Whether an expression matches the empty text."""
        if isinstance(expression, Bytes):
            return False
        if isinstance(expression, Repeated):
            return not expression.least or self.empty(expression.part)
        parts = [self.empty(each) for each in expression.parts]
        return any(parts) if isinstance(expression, Either) else all(parts)

    def alternatives(self, depth: int) -> Expression:
        """Return what is up to the end, or to the bracket that ends a group, which is left."""
        if depth > MAX_GROUPS:
            raise Unusable(f"expected at most {MAX_GROUPS} groups within one another")
        found = [self._sequence(depth)]
        while self._next() == b"|":
            self.at += 1
            found.append(self._sequence(depth))
        return found[0] if len(found) == 1 else Either(tuple(found))

    def _next(self) -> bytes:
        return self._text[self.at : self.at + 1]

    def _sequence(self, depth: int) -> Expression:
        parts = []
        while self._next() not in (b"", b")", b"|"):
            parts.append(self._quantified(self._atom(depth)))
        return Sequenced(tuple(parts))

    def _atom(self, depth: int) -> Expression:
        char = self._text[self.at]
        self.at += 1
        if char in b"([.{":
            self.plain = False
        if char == ord("("):
            return self._group(depth)
        if char == ord("["):
            return Bytes(self._members())
        if char == ord("\\"):
            return Bytes(self._escaped())
        if char == ord("."):
            return ANY
        if char in b"*+?":
            raise Unusable(f"expected something before the {chr(char)}")
        if char in b"^$":
            raise Unusable(f"expected {chr(char)} at an end only")
        if char == 0:
            raise Unusable("expected no NUL")
        return Bytes(frozenset((char,)))

    def _group(self, depth: int) -> Expression:
        if self._next() == b"?":
            if self._text[self.at : self.at + 2] != b"?:":
                raise Unusable("expected a plain group, found (?")
            self.at += 2
        if self._next() == b"*":
            raise Unusable("expected a plain group, found (*")
        found = self.alternatives(depth + 1)
        if self._next() != b")":
            raise Unusable("expected ) behind the (")
        self.at += 1
        return found

    def _quantified(self, atom: Expression) -> Expression:
        char = self._next()
        least, most, length = 0, None, 1
        if char in (b"*", b"+"):
            least = int(char == b"+")
        elif char == b"?":
            most = 1
        elif char == b"{" and (match := _COUNT.match(self._text, self.at)) is not None:
            least, length = int(match[1]), match.end() - self.at
            most = least if match[2] is None else int(match[3]) if match[3] else None
            if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
                raise Unusable(f"expected a count up to {MAX_REPEAT}, found {match[0].decode()}")
        else:
            return atom
        self.plain = False
        self.at += length
        if self._next() in (b"*", b"+", b"?"):
            raise Unusable("expected one quantifier, found two")
        return Repeated(atom, least, most)

    def _members(self) -> frozenset[int]:
        """Return the bytes of a set, whose first bracket has been read."""
        negative = self._next() == b"^"
        self.at += negative
        members: set[int] = set()
        first = True
        while True:
            if not self._next():
                raise Unusable("expected ] behind the [")
            if self._next() == b"]" and not first:
                self.at += 1
                break
            first = False
            low = self._member()
            if len(low) == 1 and self._next() == b"-" and self._text[self.at + 1 : self.at + 2] not in (b"", b"]"):
                self.at += 1
                high = self._member()
                start, end = min(low), min(high)
                if len(high) != 1 or end < start:
                    raise Unusable("expected a range from low to high within [ ]")
                members.update(range(start, end + 1))
            else:
                members |= low
        return ALL - members if negative else frozenset(members)

    def _member(self) -> frozenset[int]:
        text = self._text
        char = text[self.at]
        self.at += 1
        if char == ord("\\"):
            return self._escaped()
        if char == ord("[") and self._next() in (b":", b".", b"="):
            end = text.find(b":]", self.at + 1)
            negative = text[self.at + 1 : self.at + 2] == b"^"
            name = text[self.at + 1 + negative : max(end, 0)]
            if self._next() != b":" or name not in _CLASSES:
                raise Unusable(f"expected the name of a class such as [:alpha:], found {name[:16]!a}")
            self.at = end + 2
            found = frozenset(_CLASSES[name])
            return ALL - found if negative else found
        return frozenset((char,))

    def _escaped(self) -> frozenset[int]:
        """Return the bytes that an escape stands for, whose backslash has been read."""
        if not self._next():
            raise Unusable("expected something behind the backslash")
        char = self._text[self.at]
        self.at += 1
        if char in _CONTROL:
            return frozenset((_CONTROL[char],))
        if char < 0x80 and char | 0x20 in _SHORT:
            self.plain = False
            found = frozenset(_SHORT[char | 0x20])
            return found if char & 0x20 else ALL - found
        if char == ord("x"):
            match = _HEX.match(self._text, self.at)
            if match is None or match[0] == b"00":
                raise Unusable("expected two hexadecimal digits behind \\x")
            self.at += 2
            return frozenset((int(match[0], 16),))
        if char == 0 or (char < 0x80 and chr(char).isalnum()):
            raise Unusable(f"expected a plain character behind the backslash, found {chr(char)!a}")
        return frozenset((char,))
