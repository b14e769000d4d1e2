"""Who may use an export, and who may only read it: lists of rules about a client.

A rule is conditions joined by commas, all of which must hold: ``10.0.0.0/8``, ``::1``, ``uid=1000``, ``gid=100``,
``user=alice``, ``group=disk``, ``cid=3`` (vsock), ``unix``, ``vsock``, ``cn=NAME`` or ``name=NAME`` (a name in the
client's verified certificate), ``psk=IDENTITY``. Names are compared whole, without regard to case where they are a
certificate's.

Knows: rules and what they say of a ``Peer``. Refuses to know: where peers come from.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blockwright.errors import NotSupported, UsageError
from blockwright.nbd.server.peer import Peer

MAX_RULES: Final = 4096
"""Rules of one list."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_KEYS: Final = ("net", "uid", "gid", "user", "group", "cid", "cn", "name", "psk")
_KINDS: Final = ("unix", "vsock", "tcp")
_ID: Final = re.compile(r"[0-9]{1,10}")
_MAX_ID: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: a ``key`` and the value that a peer must have there."""

    key: str
    value: str | int | _Network

    def holds(self, peer: Peer) -> bool:
        """Whether the peer is as the condition says."""
        value, identity = self.value, peer.identity
        if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            return peer.kind == "tcp" and _within(peer.address, value)
        if self.key == "kind":
            return peer.kind == value
        if self.key == "uid":
            return peer.uid == value
        if self.key == "gid":
            return peer.gid == value
        if self.key == "cid":
            return peer.kind == "vsock" and peer.address == str(value)
        if identity is None:
            return False
        if self.key == "psk":
            return identity.psk == value
        return value in {each.casefold() for each in identity.names}


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that must all hold. ``text`` is how it was written."""

    text: str
    conditions: tuple[Condition, ...]

    def holds(self, peer: Peer) -> bool:
        """Whether all conditions hold."""
        return all(each.holds(peer) for each in self.conditions)


@dataclass(frozen=True, slots=True)
class AccessList:
    """Who may use an export: whom a rule of ``allowed`` or ``readers`` fits, everybody where neither has any.

    Whom only ``readers`` fits may not write. With ``readers`` alone nobody may.
    """

    allowed: tuple[Rule, ...] = ()
    readers: tuple[Rule, ...] = ()

    def refusal(self, peer: Peer) -> str | None:
        """Return why this peer may not, None where it may."""
        if not self.allowed and not self.readers:
            return None
        if any(rule.holds(peer) for rule in self.allowed + self.readers):
            return None
        return "no rule allows this client"

    def read_only(self, peer: Peer) -> bool:
        """Whether a peer that may use the export may only read it."""
        return bool(self.readers) and not any(rule.holds(peer) for rule in self.allowed)


def access_list(allowed: Iterable[str], readers: Iterable[str] = ()) -> AccessList | None:
    """Return the list that the rules' texts make, None where there are none. Raises UsageError."""
    made = AccessList(tuple(map(parse_rule, allowed)), tuple(map(parse_rule, readers)))
    if len(made.allowed) + len(made.readers) > MAX_RULES:
        raise UsageError(f"access: expected at most {MAX_RULES} rules, found {len(made.allowed) + len(made.readers)}")
    return made if made.allowed or made.readers else None


def parse_rule(text: str) -> Rule:
    """Return the rule that ``text`` is. Names of users and groups become numbers now. Raises UsageError."""
    return Rule(text, tuple(_condition(part.strip(), text) for part in text.split(",")))


def _condition(part: str, rule: str) -> Condition:
    if part in _KINDS:
        return Condition("kind", part)
    key, equals, value = part.partition("=")
    if not equals:
        return Condition("net", _network(part, rule))
    if key not in _KEYS:
        raise UsageError(f"rule {rule[:200]!r}: expected one of {', '.join(_KEYS)}, found the key {key[:64]!r}")
    if not value:
        raise UsageError(f"rule {rule[:200]!r}: expected a value behind {key}=")
    if key == "net":
        return Condition(key, _network(value, rule))
    if key in ("user", "group"):
        return _host_identity(key, value, rule)
    if key in ("uid", "gid", "cid"):
        if not _ID.fullmatch(value) or int(value) > _MAX_ID:
            raise UsageError(
                f"rule {rule[:200]!r}: expected a number up to {_MAX_ID} behind {key}=, found {value[:64]!r}"
            )
        return Condition(key, int(value))
    return Condition("psk", value) if key == "psk" else Condition("name", value.casefold())


def _network(text: str, rule: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        strict = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(
            f"rule {rule[:200]!r}: expected an address, a network or one of {', '.join((*_KINDS, *_KEYS))} with its "
            f"value, found {text[:64]!r}"
        ) from None
    raise UsageError(f"rule {rule[:200]!r}: expected the network {strict}, found host bits in {text[:64]!r}")


def _host_identity(key: str, name: str, rule: str) -> Condition:
    if sys.platform == "win32":
        raise NotSupported(f"rule {rule[:200]!r}: this system has no users by number")
    import grp
    import pwd

    try:
        return (
            Condition("uid", pwd.getpwnam(name).pw_uid)
            if key == "user"
            else Condition("gid", grp.getgrnam(name).gr_gid)
        )
    except (KeyError, ValueError):
        raise UsageError(f"rule {rule[:200]!r}: expected a {key} of this machine, found {name[:64]!r}") from None


def _within(address: str, network: _Network) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])  # an interface behind a link-local address
    except ValueError:
        return False
    return found.version == network.version and found in network
