"""What most images need said in their /etc: a name, a time zone, an identity of their own, a way in.

Knows: which files say it. Refuses to know: how it was asked for.

Source: hostname(5), localtime(5), machine-id(5), shadow(5), sshd(8) "AUTHORIZED_KEYS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from blockwright.errors import NotFound, UsageError
from blockwright.tree.changes.accounts import Accounts, Readable, read_file
from blockwright.tree.changes.edit import TreeEdit, show_path
from blockwright.tree.content import BytesContent
from blockwright.tree.node import File, Node, Symlink

UNINITIALIZED: Final = "uninitialized"
EMPTY_ID: Final = "empty"

_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ZONE: Final = re.compile(r"[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*")
_HASH: Final = re.compile(r"[!*]|!{0,2}\$[0-9A-Za-z]{1,16}\$[!-9;-~]{1,400}")
_KEY_TYPE: Final = re.compile(rb"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9-]+(?:@openssh\.com)?")
_OPTIONS: Final = re.compile(rb'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')


def check_hostname(name: str) -> None:
    """Raise UsageError for what Linux does not take as a name, or others cannot resolve."""
    if len(name) > 64 or not _HOSTNAME.fullmatch(name):
        raise UsageError(f"hostname: expected up to 64 letters, digits, dots and hyphens, found {name[:80]!a}")


def check_timezone(name: str) -> None:
    """Raise UsageError for what is no name of a zone."""
    if not _ZONE.fullmatch(name) or len(name) > 200:
        raise UsageError(f"timezone: expected a name such as Europe/Berlin, found {name[:80]!a}")


def check_machine_id(text: str) -> None:
    """Raise UsageError for what is neither an id nor a word for none."""
    if text not in (UNINITIALIZED, EMPTY_ID) and (not re.fullmatch("[0-9a-f]{32}", text) or text == "0" * 32):
        raise UsageError(
            f"machine-id: expected uninitialized, empty or 32 hexadecimal digits in lower case, found {text[:80]!a}"
        )


def check_password_hash(text: str) -> None:
    """Raise UsageError for what crypt(5) does not make, and for a password."""
    if not _HASH.fullmatch(text):
        raise UsageError("root-password-hash: expected a hash such as $y$… or $6$…, ! or *, found something else")


def set_hostname(edit: TreeEdit, name: str, mtime_ns: int) -> None:
    """Have the name in /etc/hostname."""
    edit.enter(b"etc/hostname", _text(name, mtime_ns))


def set_timezone(edit: TreeEdit, name: str, mtime_ns: int) -> None:
    """Have /etc/localtime lead to the zone, which the tree has to hold, and /etc/timezone say it if it is there."""
    zone = b"usr/share/zoneinfo/" + name.encode()
    if not isinstance(edit.find(zone, follow=True), File):
        raise NotFound(f"timezone: {show_path(zone)} is not in the tree")
    edit.enter(b"etc/localtime", Symlink(b"../" + zone, mtime_ns=mtime_ns))
    if edit.find(b"etc/timezone") is not None:
        edit.enter(b"etc/timezone", _text(name, mtime_ns))


def set_machine_id(edit: TreeEdit, text: str, mtime_ns: int) -> None:
    """Have the id, or the word that none is known yet, in /etc/machine-id, and none in D-Bus's own file."""
    node = File(0o444, mtime_ns=mtime_ns, content=BytesContent(b"" if text == EMPTY_ID else text.encode() + b"\n"))
    edit.enter(b"etc/machine-id", node)
    if isinstance(edit.find(b"var/lib/dbus/machine-id"), File):
        edit.remove(b"var/lib/dbus/machine-id")


def set_root_password(edit: TreeEdit, text: str, readable: Readable, mtime_ns: int) -> None:
    """Have the hash in root's line of /etc/shadow. Raises NotFound where there is none."""
    path = b"etc/shadow"
    lines = (read_file(edit.root, path, readable) or b"").split(b"\n")
    for index, line in enumerate(lines):
        fields = line.split(b":")
        if fields[0] == b"root" and len(fields) > 1:
            fields[1] = text.encode()
            lines[index] = b":".join(fields)
            break
    else:
        raise NotFound("root-password-hash: root has no line in the image's /etc/shadow")
    node = edit.own(path, follow=True)
    assert isinstance(node, File), "it was read"
    node.content = BytesContent(b"\n".join(lines))
    node.mtime_ns = mtime_ns


def check_keys(data: bytes, source: str) -> list[bytes]:
    """Return the lines of a file of public keys. Raises UsageError with the line for what is none."""
    found = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        if b"PRIVATE KEY" in line:
            raise UsageError(f"{source}: line {number}: expected public keys, found a private one")
        if not _is_key(line):
            raise UsageError(f"{source}: line {number}: expected a public key such as ssh-ed25519 AAAA…")
        found.append(line)
    if not found:
        raise UsageError(f"{source}: expected public keys, found none")
    return found


def _is_key(line: bytes) -> bool:
    """Whether a line is a key, perhaps with options in front: the key's own bytes begin with its type."""
    words = line.split(None, 2)
    if not _KEY_TYPE.fullmatch(words[0]):
        options = _OPTIONS.match(line)
        words = [] if options is None else line[options.end() :].split(None, 2)
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        return False
    try:
        key = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return False
    return key.startswith(len(words[0]).to_bytes(4, "big") + words[0])


def add_keys(
    edit: TreeEdit, user: str, keys: list[bytes], accounts: Accounts, readable: Readable, mtime_ns: int
) -> None:
    """Have keys among a user's authorised ones, behind those that are there; the folder has mode 0700, the file 0600.

    Raises NotFound for a user that the image does not have, UsageError for one without a home, or whose folder is a
    link: somebody else's would get another owner.
    """
    account = accounts.user(user.encode("utf-8", "surrogateescape"))
    home = account.home.strip(b"/")
    if not home:
        raise UsageError(f"user {user[:64]!r}: has no home in the image's /etc/passwd")
    if edit.find(home, follow=True) is None:
        made = edit.directory(home)
        made.permissions, made.uid, made.gid = 0o700, account.uid, account.gid
    if isinstance(edit.find(home + b"/.ssh"), Symlink):
        raise UsageError(f"{show_path(home)}/.ssh: expected a directory of the user's own, found a link")
    folder = edit.directory(home + b"/.ssh")
    folder.permissions, folder.uid, folder.gid = 0o700, account.uid, account.gid
    path = home + b"/.ssh/authorized_keys"
    there = [line for line in (read_file(edit.root, path, readable) or b"").split(b"\n") if line]
    there += [key for key in keys if key not in there]
    content = BytesContent(b"".join([line + b"\n" for line in there]))
    edit.enter(path, File(0o600, account.uid, account.gid, mtime_ns, content=content))


def _text(text: str, mtime_ns: int) -> Node:
    return File(mtime_ns=mtime_ns, content=BytesContent(text.encode() + b"\n"))
