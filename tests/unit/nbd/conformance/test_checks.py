"""Each check passes on a server that keeps the rules, and fails on one that breaks its rule."""

from functools import cache

import pytest

from blockwright.errors import NotFound, NotSupported, UsageError
from blockwright.nbd.conformance import CHECKS, Level, Outcome, check_server, limits, run
from blockwright.nbd.uri import NbdUri
from tests.support.nbdfaults import PROFILES, TABLE
from tests.support.nbdscripted import Config, Fault, Server, start_toy_tls

LONG_S = 60.0
"""For a server that answers: no check comes near it."""
SHORT_S = 0.4
"""For a server that will never answer."""


def results(profile, fault=None, *, timeout_s=LONG_S, **options):
    config = PROFILES[profile]()
    for name, value in (fault.config if fault else {}).items():
        setattr(config, name, value)
    server = Server(config, fault)
    before = bytes(server.data)
    uri = NbdUri("tcp", "disk", host="server", tls=profile in ("inside TLS", "keeps state"))
    try:
        found = list(check_server(uri, server.dial, start_tls=start_toy_tls, timeout_s=timeout_s, **options))
    finally:
        server.close()
    assert bytes(server.data) == before, "what was there is there again"
    return {each.check.id: each for each in found}


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_S", SHORT_S)


@cache
def kept_rules(profile):
    return results(profile, write=True)


@pytest.mark.parametrize("profile", [each for each in PROFILES if each != "impatient"])
def test_a_server_that_keeps_the_rules_fails_none(profile):
    found = kept_rules(profile).values()
    assert [str(each) for each in found if each.outcome in (Outcome.FAILED, Outcome.ERROR)] == []


def test_a_server_without_patience_passes_what_asks_for_that(monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_S", LONG_S)
    found = results("impatient", slow=True, only=["L11", "L12"])
    assert {each.outcome for each in found.values()} == {Outcome.PASSED}


def test_every_check_passes_on_some_server():
    found = [each for profile in PROFILES if profile != "impatient" for each in kept_rules(profile).values()]
    passed = {each.check.id for each in found if each.outcome is Outcome.PASSED}
    assert {each.id for each in CHECKS} - passed == {"L11", "L12"}, "but for those tried above"


def test_every_check_has_a_fault():
    assert sorted(TABLE) == sorted(each.id for each in CHECKS)


@pytest.mark.parametrize("identity", [each.id for each in CHECKS])
def test_a_check_fails_on_a_server_that_breaks_its_rule(identity):
    case = TABLE[identity]
    timeout_s = SHORT_S if case.silent else LONG_S
    found = results(case.profile, case.fault, timeout_s=timeout_s, write=True, slow=True, only=[identity])
    assert found[identity].outcome is Outcome.FAILED, found[identity]
    assert found[identity].message.startswith("expected ")


def test_nothing_is_written_unless_that_is_allowed():
    written = []

    def note(connection, request, reply):
        if request.command in (1, 4, 6, 8):
            written.append(request)
        return reply

    found = results("full", Fault(request=note))
    assert written == []
    held_back = [each for each in found.values() if each.check.writes]
    assert held_back
    assert all(each.outcome is Outcome.NOT_APPLICABLE for each in held_back)
    assert any("not allowed" in each.message for each in held_back)
    results("full", Fault(request=note), write=True)
    assert {each.command for each in written} == {1, 4, 6, 8}


def test_what_cannot_be_put_back_is_told():
    def losing(connection, request, reply):
        if request.command == 1 and request.length:
            connection.server.data[request.offset] ^= 0xFF
        return reply

    server = Server(Config(), Fault(request=losing))
    try:
        (found,) = check_server(NbdUri("tcp", "disk", host="x"), server.dial, write=True, only=["W01"])
    finally:
        server.close()
    assert found.outcome is Outcome.ERROR
    assert "could not be put back" in found.message


def test_a_server_that_says_nothing_fails_and_does_not_hang(monkeypatch):
    monkeypatch.setattr(run, "SURVEY_S", 0.05)

    def hang(_greeting):
        return b""

    found = results("full", Fault(greeting=hang), timeout_s=0.05)
    assert found["H01"].outcome is Outcome.FAILED
    assert "none within 0.05 s" in found["H01"].message
    assert {each.outcome for each in found.values()} <= {Outcome.FAILED, Outcome.NOT_APPLICABLE}


def test_nobody_there_is_an_error_of_the_caller():
    server = Server(Config())
    server.dead = True
    with pytest.raises(NotFound):
        list(check_server(NbdUri("tcp", "disk", host="x"), server.dial))


def test_a_check_that_does_not_exist():
    with pytest.raises(UsageError, match="X99"):
        list(check_server(NbdUri("tcp", "disk", host="x"), Server(Config()).dial, only=["X99"]))


def test_an_address_with_tls_wants_a_way_to_start_it():
    with pytest.raises(NotSupported, match="TLS"):
        list(check_server(NbdUri("tcp", "disk", host="x", tls=True), Server(Config()).dial))


def test_checks_are_listed_in_order_and_have_all_that_is_shown():
    letters = list(dict.fromkeys(each.id[0] for each in CHECKS))
    assert letters == list("HOIMPTWSBEL")
    for letter in letters:
        numbers = [int(each.id[1:]) for each in CHECKS if each.id[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1))
    assert all(each.title and each.section for each in CHECKS)
    assert {each.level for each in CHECKS} == set(Level)
