"""What is asked for: one value, that a command's options or a definition's keys fill.

Values are text as people write it; what they mean is found when they are made ready (``ready``), and names of users
when they are applied. Paths are the host's.

Knows: what can be asked. Refuses to know: how any of it is done.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from blockwright.errors import UsageError

FILES = "files"
PARTITION = "partition"
REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Addition:
    """A file, a directory with all below it (``source``, of the host), or literal ``text``, put at ``path``.

    ``mode`` is octal and for files alone; ``owner`` is as in ``Changes``, or ``keep`` for the host's. Without them a
    file has the host's mode (0644 for text) and belongs to root.
    """

    path: str
    source: str | None = None
    text: str | None = None
    mode: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is changed between a source and what is made of it, in this order.

    ``map_ids`` (``[u:|g:]FIRST:FIRST_IN_SOURCE:COUNT``), with ``unmapped`` (``refuse``, ``keep`` or a number);
    ``exclude`` and ``exclude_from`` (patterns, and files of them), ``only``; ``owner`` (``USER:GROUP``, names or
    numbers) and ``umask`` (octal) for all that is left; ``add``; ``hostname``, ``timezone``, ``machine_id``,
    ``root_password_hash``, ``authorized_keys`` (``FILE[:USER]``), ``cloud_init`` (a directory, or files), as
    ``cloud_init_as`` says; ``fstab``; ``device_tables``; ``manifests``; ``selinux_contexts``.
    """

    map_ids: tuple[str, ...] = ()
    unmapped: str = REFUSE
    exclude: tuple[str, ...] = ()
    exclude_from: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    owner: str | None = None
    umask: str | None = None
    add: tuple[Addition, ...] = ()
    hostname: str | None = None
    timezone: str | None = None
    machine_id: str | None = None
    root_password_hash: str | None = None
    authorized_keys: tuple[str, ...] = ()
    cloud_init: tuple[str, ...] = ()
    cloud_init_as: str = FILES
    fstab: bool = False
    device_tables: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    selinux_contexts: str | None = None

    def refuse_disk(self, what: str) -> None:
        """Raise UsageError where something is asked for that a disk has and ``what`` does not."""
        if self.fstab or self.cloud_init_as != FILES:
            raise UsageError(f"{what}: fstab and a partition for cloud-init are of disks: expected neither")

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, each.name) != each.default for each in fields(self))
