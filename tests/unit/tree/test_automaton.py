"""The machine of many expressions, against Python's own regular expressions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.tree import automaton
from blockwright.tree.automaton import ANY, Automaton, Bytes, Either, Repeated, Sequenced, TooLarge, literal

ALPHABET = b"ab/"
ANYTHING = Repeated(ANY, 0, None)


def expressions(depth: int = 3):
    """An expression with the text of it for `re`."""
    leaves = [(literal(b"a"), b"a"), (literal(b"b/"), b"b/"), (ANY, b"."), (Bytes(frozenset(b"ab")), b"[ab]")]
    leaf = st.sampled_from(leaves)
    if not depth:
        return leaf
    inner = expressions(depth - 1)
    some = st.lists(inner, min_size=1, max_size=3)
    counts = st.sampled_from([(0, None), (1, None), (0, 1), (2, 2), (1, 3), (0, 2)])
    return st.one_of(
        leaf,
        some.map(lambda each: (Sequenced(tuple(e for e, _ in each)), b"".join(r for _, r in each))),
        some.map(lambda each: (Either(tuple(e for e, _ in each)), b"(?:" + b"|".join(r for _, r in each) + b")")),
        st.tuples(inner, counts).map(
            lambda each: (
                Repeated(each[0][0], *each[1]),
                b"(?:%s){%d,%s}" % (each[0][1], each[1][0], b"" if each[1][1] is None else b"%d" % each[1][1]),
            )
        ),
    )


@given(st.lists(expressions(), min_size=1, max_size=4), st.lists(st.text("ab/", max_size=7), max_size=8))
def test_the_last_expression_that_matches_is_found(pairs, texts):
    machine = Automaton()
    for number, (expression, _) in enumerate(pairs):
        machine.add(Sequenced((ANY, expression)), number)
    compiled = [re.compile(b"(?s:." + regex + b")") for _, regex in pairs]
    for text in texts:
        data = b"x" + text.encode()
        expected = max((number for number, regex in enumerate(compiled) if regex.fullmatch(data)), default=-1)
        assert machine.run(machine.start, data).best(0) == expected
        half = machine.run(machine.start, data[:3])
        assert machine.run(half, data[3:]).best(0) == expected


def test_a_kind_hides_expressions_of_another():
    machine = Automaton()
    machine.add(literal(b"x"), 0)
    machine.add(literal(b"x"), 1, 7)
    state = machine.run(machine.start, b"x")
    assert (state.best(7), state.best(8)) == (1, 0)


@pytest.mark.parametrize("limit", ["MAX_STATES", "MAX_EXPECTED"])
def test_states_are_forgotten_and_found_again(monkeypatch, limit):
    monkeypatch.setattr(automaton, limit, 3)
    machine = Automaton()
    machine.add(Sequenced((ANYTHING, literal(b"abcdef"))), 5)
    for _ in range(3):
        assert machine.run(machine.start, b"xxabcabcdef").best(0) == 5
        assert machine.run(machine.start, b"xxabcabcdeg").best(0) == -1


def test_what_would_take_a_regular_expression_for_ever_does_not():
    machine = Automaton()
    part = Repeated(Sequenced((literal(b"."), ANYTHING)), 0, None)
    machine.add(Sequenced((literal(b"so"), part)), 0)
    assert machine.run(machine.start, b"so" + b"." * 4000 + b"x").best(0) == 0
    assert machine.run(machine.start, b"sox" + b"." * 4000).best(0) == -1


def test_an_expression_that_would_take_too_much_memory_is_refused():
    machine = Automaton()
    with pytest.raises(TooLarge):
        machine.add(Repeated(Repeated(Repeated(ANY, 0, 255), 0, 255), 0, 255), 0)


def test_too_many_places_are_refused(monkeypatch):
    monkeypatch.setattr(automaton, "MAX_POSITIONS", 10)
    with pytest.raises(TooLarge):
        Automaton().add(literal(b"x" * 20), 0)
