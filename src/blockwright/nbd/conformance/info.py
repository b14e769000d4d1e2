"""I: INFO and GO, and what they tell of an export.

Knows: sections "Option types", "Option reply types", "Transmission flags" and "Block size constraints".
Refuses to know: what an export then does.
"""

from __future__ import annotations

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import info_data, option_bytes
from blockwright.nbd.conformance.model import Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.options import check_string, refused_or_ended
from blockwright.nbd.conformance.probe import ODD_NAME, Probe
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.wire import Command, InfoType, Option, ReplyType, TransmissionFlag
from blockwright.units import MiB

_OPTIONS = "Option types"
_BLOCKS = "Block size constraints"
_NO_LIMIT = 0xFFFF_FFFF
_ALL = (InfoType.EXPORT, InfoType.NAME, InfoType.DESCRIPTION, InfoType.BLOCK_SIZE)


@rule("I01", "INFO tells NBD_INFO_EXPORT before its ACK", Level.MUST, "Baseline", Need.EXPORT)
def _info(probe: Probe) -> None:
    probe.describe(probe.haggling(), Option.INFO)


@rule("I02", "GO enters transmission at once, without padding", Level.MUST, _OPTIONS, Need.EXPORT)
def _go(probe: Probe) -> None:
    link = probe.haggling(wire.HandshakeFlag.FIXED_NEWSTYLE)
    link.send(option_bytes(Option.GO, info_data(probe.name)))
    link.answer(Option.GO).expect(ReplyType.ACK)
    cookie = 0x0102030405060708
    link.send(wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, Command.READ, cookie, 0, 0))
    head = link.receive(4)
    if wire.U32.unpack(head)[0] != wire.SIMPLE_REPLY_MAGIC:
        fail("a reply to the first request", f"the bytes {head.hex()}")


@rule("I03", "GO tells what INFO told, asked for the same", Level.MUST, _OPTIONS, Need.EXPORT, Need.INFO)
def _same(probe: Probe) -> None:
    link = probe.haggling()
    told = probe.describe(link, Option.INFO, *_ALL)
    went = probe.describe(link, Option.GO, *_ALL)
    if told.size != went.size:
        fail(f"size {told.size}, as INFO told", f"{went.size}")
    if told.flags != went.flags:
        fail(f"flags {told.flags:#06x}, as INFO told", f"{went.flags:#06x}")
    if sorted(told.records) != sorted(went.records):
        fail(f"the {len(told.records)} records of INFO", f"{len(went.records)} that are not the same")


@rule("I04", "unknown information requests are ignored", Level.MUST, _OPTIONS, Need.INFO)
def _unknown_info(probe: Probe) -> None:
    probe.describe(probe.haggling(), Option.INFO, 0x7ABC, InfoType.BLOCK_SIZE, 0xFFFF)


@rule("I05", "INFO and GO of no export are answered ERR_UNKNOWN", Level.MUST, _OPTIONS, Need.STRICT_NAMES, Need.INFO)
def _unknown_name(probe: Probe) -> None:
    for option in (Option.INFO, Option.GO):
        allowed = [ReplyType.ERR_UNKNOWN, ReplyType.ERR_POLICY, ReplyType.ERR_SHUTDOWN]
        if not probe.uri.tls and probe.facts.tls_offered:
            allowed.append(ReplyType.ERR_TLS_REQD)
        probe.haggling().ask(option, info_data(ODD_NAME)).expect(*allowed)


@rule("I06", "a GO that failed leaves the connection haggling", Level.MUST, _OPTIONS, Need.STRICT_NAMES, Need.EXPORT)
def _go_on(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.GO, info_data(ODD_NAME)).expect_error()
    probe.go(link).in_step()


@rule("I07", "GO enters what it names, not what INFO named", Level.MUST, _OPTIONS, Need.STRICT_NAMES, Need.INFO)
def _own_name(probe: Probe) -> None:
    link = probe.haggling()
    probe.describe(link, Option.INFO)
    link.ask(Option.GO, info_data(ODD_NAME)).expect_error()


@rule("I08", "a name longer than its option is refused", Level.MUST, _OPTIONS, Need.INFO)
def _long_name(probe: Probe) -> None:
    for length in (len(probe.name) + 3, 0x7FFF_FFFF, 0xFFFF_FFFF):
        data = wire.U32.pack(length) + probe.name + wire.U16.pack(0)
        refused_or_ended(probe.haggling(), Option.GO, option_bytes(Option.GO, data))


@rule("I09", "GO without data is refused", Level.MUST, _OPTIONS, Need.INFO)
def _no_data(probe: Probe) -> None:
    refused_or_ended(probe.haggling(), Option.GO, option_bytes(Option.GO))


@rule("I10", "fewer information requests than counted are refused", Level.MUST, _OPTIONS, Need.INFO)
def _too_few(probe: Probe) -> None:
    for count in (2, 0xFFFF):
        _miscounted(probe, count)


def _miscounted(probe: Probe, count: int) -> None:
    data = wire.U32.pack(len(probe.name)) + probe.name + wire.U16.pack(count) + wire.U16.pack(InfoType.BLOCK_SIZE)
    refused_or_ended(probe.haggling(), Option.INFO, option_bytes(Option.INFO, data))


@rule("I11", "a name of 4096 bytes is answered", Level.SHOULD, "Conventions", Need.INFO)
def _longest_name(probe: Probe) -> None:
    link = probe.haggling()
    final = link.ask(Option.INFO, info_data(b"\xc3\xa9" * (wire.MAX_STRING // 2))).final
    if final.kind & wire.ERROR_BIT:
        check_string(final.data, "an error's text")
    link.ask(Option.LIST)


@rule("I12", "NBD_INFO_NAME and NBD_INFO_DESCRIPTION are strings", Level.MUST, "Option reply types", Need.INFO)
def _texts(probe: Probe) -> None:
    told = probe.describe(probe.haggling(), Option.INFO, InfoType.NAME, InfoType.DESCRIPTION)
    for record in told.records:
        kind = wire.U16.unpack_from(record)[0]
        if kind in (InfoType.NAME, InfoType.DESCRIPTION):
            check_string(record[wire.U16.size :], InfoType(kind).name.lower())


@rule("I13", "HAS_FLAGS is set", Level.MUST, "Transmission flags", Need.EXPORT)
def _has_flags(probe: Probe) -> None:
    flags = probe.enter().flags
    if not flags & TransmissionFlag.HAS_FLAGS:
        fail("NBD_FLAG_HAS_FLAGS", f"the flags {int(flags):#06x}")


@rule("I14", "SEND_DF is clear without structured replies", Level.MUST, "Transmission flags", Need.EXPORT)
def _no_df(probe: Probe) -> None:
    flags = probe.enter().flags
    if flags & TransmissionFlag.SEND_DF:
        fail("no NBD_FLAG_SEND_DF", f"the flags {int(flags):#06x}")


@rule("I15", "SEND_FAST_ZERO is clear without SEND_WRITE_ZEROES", Level.MUST, "Transmission flags", Need.EXPORT)
def _no_fast_zero(probe: Probe) -> None:
    flags = probe.enter().flags
    if flags & TransmissionFlag.SEND_FAST_ZERO and not flags & TransmissionFlag.SEND_WRITE_ZEROES:
        fail("no NBD_FLAG_SEND_FAST_ZERO", f"the flags {int(flags):#06x}")


@rule("I16", "block sizes keep to the powers and bounds", Level.MUST, _BLOCKS, Need.BLOCK_SIZES, Need.EXPORT)
def _block_sizes(probe: Probe) -> None:
    blocks, size = _blocks(probe)
    if not _is_power(blocks.minimum) or blocks.minimum > 1 << 16:
        fail("a minimum that is a power of 2 and at most 65536", f"{blocks.minimum}")
    if not _is_power(blocks.preferred) or blocks.preferred < max(blocks.minimum, 512):
        fail(f"a preferred size that is a power of 2 and at least {max(blocks.minimum, 512)}", f"{blocks.preferred}")
    if blocks.maximum != _NO_LIMIT and blocks.maximum % blocks.minimum:
        fail(f"a maximum that is a multiple of {blocks.minimum}, or {_NO_LIMIT:#x}", f"{blocks.maximum}")
    if blocks.maximum < min(blocks.preferred, size):
        fail(f"a maximum of at least {min(blocks.preferred, size)}", f"{blocks.maximum}")


@rule(
    "I17", "the maximum is 1 MiB or more, where the export is", Level.SHOULD, _BLOCKS, Need.BLOCK_SIZES, Need.EXPORT
)
def _large_maximum(probe: Probe) -> None:
    blocks, size = _blocks(probe)
    if blocks.maximum < min(MiB, size):
        fail(f"a maximum of at least {min(MiB, size)}", f"{blocks.maximum}")


@rule("I18", "the export is a multiple of the minimum block", Level.SHOULD, _BLOCKS, Need.BLOCK_SIZES, Need.EXPORT)
def _whole_blocks(probe: Probe) -> None:
    blocks, size = _blocks(probe)
    if size % max(blocks.minimum, 1):
        fail(f"a multiple of {blocks.minimum}", f"{size}")


@rule("I19", "more information requests than counted are refused", Level.ADVICE, "Option reply types", Need.INFO)
def _too_many(probe: Probe) -> None:
    _miscounted(probe, 0)


def _is_power(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _blocks(probe: Probe) -> tuple[BlockSizes, int]:
    session = probe.enter()
    blocks = session.blocks or probe.facts.blocks
    if blocks is None:
        raise NotApplicable("block sizes are told at one time and not at another")
    return blocks, session.size
