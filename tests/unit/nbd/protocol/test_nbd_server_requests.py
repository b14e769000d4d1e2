"""Which requests are refused, and how: "Request types" and "Command flags" of doc/proto.md."""

import dataclasses

import pytest

from blockwright.nbd.protocol.requests import Request, Rules, payload_length, refusal
from blockwright.nbd.protocol.session import ExportInfo, Session
from blockwright.nbd.wire import Command, CommandFlag, Error, TransmissionFlag

SIZE = 1 << 20
ALL = TransmissionFlag(0x1FFF) & ~(TransmissionFlag.READ_ONLY | TransmissionFlag.SEND_RESIZE)
SESSION = Session(ExportInfo("x", SIZE, ALL), structured=True, contexts={1: "base:allocation"})
RULES = Rules.of(SESSION, minimum=512, maximum=65536)
EXTENDED = dataclasses.replace(RULES, extended=True)
RANGED = [Command.READ, Command.WRITE, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES, Command.BLOCK_STATUS]


def ask(command, offset=0, length=512, flags=0, rules=RULES):
    found = refusal(rules, Request(flags, command, 7, offset, length))
    return None if found is None else found.number


@pytest.mark.parametrize("command", [*RANGED, Command.FLUSH, Command.DISC])
def test_what_is_offered_is_served(command):
    assert ask(command) is None
    assert ask(command, flags=CommandFlag.FUA) is None


@pytest.mark.parametrize("command", [9, 100, 0x8000, 0xFFFF])
def test_unknown_commands_are_einval(command):
    assert ask(command) == Error.EINVAL


@pytest.mark.parametrize("command", list(Command))
@pytest.mark.parametrize("flag", [*CommandFlag, 1 << 6, 1 << 15])
def test_a_flag_is_for_its_commands_only(command, flag):
    allowed = {
        CommandFlag.FUA: set(Command),
        CommandFlag.NO_HOLE: {Command.WRITE_ZEROES},
        CommandFlag.FAST_ZERO: {Command.WRITE_ZEROES},
        CommandFlag.DF: {Command.READ},
        CommandFlag.REQ_ONE: {Command.BLOCK_STATUS},
    }.get(flag, set())
    rules = dataclasses.replace(RULES, flags=ALL | TransmissionFlag.SEND_RESIZE)
    assert (ask(command, flags=int(flag), rules=rules) is None) == (command in allowed)


def test_fua_that_was_not_offered_is_einval():
    rules = dataclasses.replace(RULES, flags=ALL & ~TransmissionFlag.SEND_FUA)
    assert ask(Command.WRITE, flags=CommandFlag.FUA, rules=rules) == Error.EINVAL


@pytest.mark.parametrize("command", [Command.WRITE, Command.TRIM, Command.WRITE_ZEROES, Command.RESIZE])
def test_writing_to_what_is_read_only_is_eperm(command):
    rules = dataclasses.replace(RULES, flags=ALL | TransmissionFlag.READ_ONLY)
    assert ask(command, rules=rules) == Error.EPERM
    assert ask(Command.READ, rules=rules) is None


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (Command.FLUSH, TransmissionFlag.SEND_FLUSH),
        (Command.TRIM, TransmissionFlag.SEND_TRIM),
        (Command.WRITE_ZEROES, TransmissionFlag.SEND_WRITE_ZEROES),
        (Command.RESIZE, TransmissionFlag.SEND_RESIZE),
    ],
)
def test_what_was_not_offered_is_einval(command, flag):
    assert ask(command, rules=dataclasses.replace(RULES, flags=ALL & ~flag)) == Error.EINVAL


def test_fast_zero_that_was_not_offered_is_einval():
    rules = dataclasses.replace(RULES, flags=ALL & ~TransmissionFlag.SEND_FAST_ZERO)
    assert ask(Command.WRITE_ZEROES, flags=CommandFlag.FAST_ZERO, rules=rules) == Error.EINVAL


@pytest.mark.parametrize("command", RANGED)
@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE, 512), (SIZE - 512, 1024), ((1 << 64) - 512, 512), ((1 << 64) - 512, 1024)]
)
def test_ranges_beyond_the_end_are_refused(command, offset, length):
    expected = Error.ENOSPC if command in (Command.WRITE, Command.WRITE_ZEROES) else Error.EINVAL
    assert ask(command, offset, length) == expected


@pytest.mark.parametrize("command", RANGED)
def test_ranges_are_whole_blocks(command):
    assert ask(command, 512, 512) is None
    assert ask(command, 511, 512) == Error.EINVAL
    assert ask(command, 512, 511) == Error.EINVAL


def test_payloads_have_a_limit_and_effects_have_none():
    for command in RANGED:
        limited = command in (Command.READ, Command.WRITE)
        assert ask(command, 0, 65536) is None
        assert ask(command, 0, 65536 + 512) == (Error.EINVAL if limited else None)


@pytest.mark.parametrize("command", RANGED)
def test_requests_of_no_bytes_do_no_harm(command):
    assert ask(command, 0, 0) == (None if command == Command.WRITE else Error.EINVAL)


def test_df_and_block_status_need_what_was_negotiated():
    assert ask(Command.READ, flags=CommandFlag.DF, rules=dataclasses.replace(RULES, structured=False)) == Error.EINVAL
    assert ask(Command.BLOCK_STATUS, rules=dataclasses.replace(RULES, statuses=False)) == Error.EINVAL


def test_extended_headers_announce_payloads():
    assert ask(Command.WRITE, rules=EXTENDED) == Error.EINVAL
    assert ask(Command.WRITE, flags=CommandFlag.PAYLOAD_LEN, rules=EXTENDED) is None
    assert ask(Command.BLOCK_STATUS, flags=CommandFlag.PAYLOAD_LEN, length=12, rules=EXTENDED) is None
    assert ask(Command.READ, flags=CommandFlag.PAYLOAD_LEN, rules=EXTENDED) == Error.EINVAL
    none = dataclasses.replace(EXTENDED, flags=ALL & ~TransmissionFlag.BLOCK_STATUS_PAYLOAD)
    assert ask(Command.BLOCK_STATUS, flags=CommandFlag.PAYLOAD_LEN, length=12, rules=none) == Error.EINVAL


def test_what_follows_a_header_follows_from_the_header_alone():
    """Whatever becomes of a request, the next one begins where this one says."""
    for command in range(20):
        request = Request(0, command, 1, 0, 4096)
        assert payload_length(request, extended=False) == (4096 if command == Command.WRITE else 0)
        announced = request._replace(flags=CommandFlag.PAYLOAD_LEN)
        assert payload_length(announced, extended=True) == 4096
        assert payload_length(announced, extended=False) == (4096 if command == Command.WRITE else 0)
