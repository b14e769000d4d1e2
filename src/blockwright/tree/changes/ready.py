"""What was asked for is made ready: files of the host are read and checked; then it can be applied to a tree.

The order is that of what builds on what: ids of the source are mapped, names are left out, all that is left gets an
owner and its permissions masked; then things are added, each with an owner of its own; tables and manifests say the
last word about single nodes; labels follow from paths, when all paths are known.

Knows: that order. Refuses to know: sources, disks, and how any step is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockwright.errors import NotFound, UsageError
from blockwright.tree.changes.accounts import Accounts, Readable, as_it_is
from blockwright.tree.changes.options import FILES, PARTITION, REFUSE, Changes
from blockwright.tree.node import Directory, newest_time

if TYPE_CHECKING:
    from blockwright.tree.changes.cloudinit import Seed
    from blockwright.tree.changes.edit import TreeEdit


class Ready:
    """Changes that can be applied. ``seed`` is cloud-init's where there is one; ``label`` labels all of a tree."""

    def __init__(
        self,
        general: list[Step],
        edits: list[Edit],
        last: list[Step],
        seed: Seed | None,
        labels: Label,
    ) -> None:
        self.seed = seed
        self.label = labels
        self._general = general
        self._edits = edits
        self._last = last

    def apply(self, tree: Directory, *, readable: Readable = as_it_is, more: Edit | None = None) -> Directory:
        """Return the changed tree; ``tree`` stays as it is.

        ``readable`` makes contents readable that are not any more, ``more`` puts in what the caller adds. What is
        made new has the newest time of ``tree``. Raises UsageError, NotFound, IntegrityError, and what reading
        contents raises.
        """
        mtime_ns = newest_time(tree)
        surroundings = Surroundings(readable, mtime_ns)
        for step in self._general:
            tree = step(tree, surroundings)
        edits = [*self._edits, *([] if more is None else [more])]
        if edits:
            from blockwright.tree.changes.edit import TreeEdit

            edit = TreeEdit(tree, mtime_ns)
            for each in edits:
                each(edit, surroundings)
            tree = edit.finish()
        for step in self._last:
            tree = step(tree, surroundings)
        return tree if self.label is None else self.label(tree)


class Surroundings:
    """What steps are told beside the tree."""

    __slots__ = ("mtime_ns", "readable")

    def __init__(self, readable: Readable, mtime_ns: int) -> None:
        self.readable = readable
        self.mtime_ns = mtime_ns


Step = Callable[[Directory, Surroundings], Directory]
Edit = Callable[["TreeEdit", Surroundings], None]
Label = Callable[[Directory], Directory] | None
"""Labels every node of a tree; None where no labels are asked for."""


def ready(changes: Changes) -> Ready:
    """Return the changes with every file of the host read, and everything checked that needs no tree.

    Raises UsageError, NotFound, FormatError with file and line, OSError of the host.
    """
    general = [*_ids(changes), *_names(changes), *_owners(changes)]
    edits = [*_additions(changes), *_helpers(changes)]
    last = [*_tables(changes), *_manifests(changes)]
    seed = _seed(changes)
    if seed is not None and changes.cloud_init_as == FILES:
        from blockwright.tree.changes.cloudinit import put_seed

        edits.append(lambda edit, about: put_seed(edit, seed, about.mtime_ns))
    return Ready(general, edits, last, seed, _labels(changes))


def _seed(changes: Changes) -> Seed | None:
    if changes.cloud_init_as not in (FILES, PARTITION):
        raise UsageError(f"cloud-init-as: expected files or partition, found {changes.cloud_init_as[:32]!r}")
    if changes.cloud_init:
        from blockwright.tree.changes.cloudinit import read_seed

        return read_seed(changes.cloud_init)
    if changes.cloud_init_as != FILES:
        raise UsageError("cloud-init-as: is of use with --cloud-init only")
    return None


def _labels(changes: Changes) -> Label:
    if changes.selinux_contexts is None:
        return None
    from blockwright.tree.selinux.contexts import read_contexts
    from blockwright.tree.selinux.label import label

    contexts = read_contexts(changes.selinux_contexts)
    return lambda tree: label(tree, contexts)


def _ids(changes: Changes) -> list[Step]:
    if not changes.map_ids:
        if changes.unmapped != REFUSE:
            raise UsageError("unmapped ids: are of use with --map-ids only")
        return []
    from blockwright.tree.changes.owners import map_ids, parse_maps

    users, groups = parse_maps(changes.map_ids, changes.unmapped)
    return [lambda tree, _: map_ids(tree, users, groups)]


def _names(changes: Changes) -> list[Step]:
    if not (changes.exclude or changes.exclude_from or changes.only):
        return []
    from blockwright.tree.changes.patterns import Patterns, exclude, only, read_patterns
    from blockwright.tree.changes.text import read_host

    steps: list[Step] = []
    if changes.only:
        wanted = Patterns([os.fsencode(each) for each in changes.only], "--only")
        shown = " or ".join(repr(each) for each in changes.only)

        def taken(tree: Directory, _: Surroundings) -> Directory:
            made = only(tree, wanted)
            if tree.entries and not made.entries:  # a pattern that is misspelt must not make a disk of nothing
                raise UsageError(f"--only: expected something of the source's to match {shown:.200}, found nothing")
            return made

        steps.append(taken)
    texts: list[bytes] = []
    for path in changes.exclude_from:
        found = read_patterns(read_host(path))
        Patterns(found, path)  # so that a wrong one is told with the file
        texts += found
    texts += [os.fsencode(each) for each in changes.exclude]
    if texts:
        unwanted = Patterns(texts, "--exclude")
        steps.append(lambda tree, _: exclude(tree, unwanted))
    return steps


def _owners(changes: Changes) -> list[Step]:
    steps: list[Step] = []
    owner = changes.owner
    if owner is not None:
        from blockwright.tree.changes.owners import set_owner

        steps.append(lambda tree, about: set_owner(tree, *Accounts(tree, about.readable).owner(owner)))
    if changes.umask is not None:
        from blockwright.tree.changes.owners import mask_permissions, parse_umask

        umask = parse_umask(changes.umask)
        steps.append(lambda tree, _: mask_permissions(tree, umask))
    return steps


def _additions(changes: Changes) -> list[Edit]:
    if not changes.add:
        return []
    from blockwright.tree.changes import add

    for each in changes.add:
        add.check(each)
        if each.source is not None and not os.path.exists(each.source):
            raise NotFound(f"add: {each.source}: no such file or directory")

    def edit_all(edit: TreeEdit, about: Surroundings) -> None:
        for each in changes.add:
            add.add(edit, each, Accounts(edit.root, about.readable), about.mtime_ns)

    return [edit_all]


def _helpers(changes: Changes) -> list[Edit]:
    steps: list[Edit] = []
    from blockwright.tree.changes import helpers

    name, zone, identity = changes.hostname, changes.timezone, changes.machine_id
    if name is not None:
        helpers.check_hostname(name)
        steps.append(lambda edit, about: helpers.set_hostname(edit, name, about.mtime_ns))
    if zone is not None:
        helpers.check_timezone(zone)
        steps.append(lambda edit, about: helpers.set_timezone(edit, zone, about.mtime_ns))
    if identity is not None:
        helpers.check_machine_id(identity)
        steps.append(lambda edit, about: helpers.set_machine_id(edit, identity, about.mtime_ns))
    password = changes.root_password_hash
    if password is not None:
        helpers.check_password_hash(password)
        steps.append(lambda edit, about: helpers.set_root_password(edit, password, about.readable, about.mtime_ns))
    return steps + [_keys(text) for text in changes.authorized_keys]


def _keys(text: str) -> Edit:
    from blockwright.tree.changes import helpers
    from blockwright.tree.changes.text import read_host

    path, user = text, "root"
    if not os.path.exists(text) and ":" in text:
        path, _, user = text.rpartition(":")
    keys = helpers.check_keys(read_host(path, 1 << 20), path)

    def edit_keys(edit: TreeEdit, about: Surroundings) -> None:
        accounts = Accounts(edit.root, about.readable)
        helpers.add_keys(edit, user, keys, accounts, about.readable, about.mtime_ns)

    return edit_keys


def _tables(changes: Changes) -> list[Step]:
    return [_table(path) for path in changes.device_tables]


def _table(path: str) -> Step:
    from blockwright.tree.changes.devicetable import apply_table, parse_table
    from blockwright.tree.changes.text import read_host

    rows = parse_table(read_host(path), path)
    return lambda tree, about: apply_table(tree, rows, mtime_ns=about.mtime_ns, readable=about.readable)


def _manifests(changes: Changes) -> list[Step]:
    return [_manifest(path) for path in changes.manifests]


def _manifest(path: str) -> Step:
    from blockwright.tree.changes.text import read_host
    from blockwright.tree.mtree.apply import apply_manifest
    from blockwright.tree.mtree.parse import parse

    entries = parse(read_host(path), path)
    return lambda tree, about: apply_manifest(tree, entries, mtime_ns=about.mtime_ns, readable=about.readable)
