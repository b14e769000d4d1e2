"""What can be asked of a build: contradictions are refused, and identities follow from all of it."""

from dataclasses import replace

import pytest

from blockwright.boot.kinds import Bios, Uefi, Ways
from blockwright.build.definition import (
    BootOptions,
    Definition,
    Home,
    NamedContent,
    PartitionDefinition,
    RootOptions,
    Table,
)
from blockwright.errors import UsageError
from blockwright.tree.content import BytesContent
from blockwright.units import MiB

FILE = NamedContent("file", BytesContent(b"x"))


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (Definition(table=Table.NONE, boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL))), "cannot be made to boot"),
        (Definition(table=Table.NONE, size=MiB, root=RootOptions(size=2 * MiB)), "one size"),
        (Definition(size=MiB, root=RootOptions(free=0.1)), "found both"),
        (Definition(root=RootOptions(size=MiB, free=0.1)), "found both"),
        (Definition(sector_size=1024), "512 or 4096"),
        (Definition(sector_size=4096, root=RootOptions(block_size=1024)), "at least a sector"),
        (Definition(boot=BootOptions(kernel=FILE)), "with --boot only"),
        (Definition(boot=BootOptions(initrd=FILE)), "with --boot only"),
        (Definition(boot=BootOptions(loader=FILE)), "with --boot only"),
        (Definition(boot=BootOptions(cmdline="quiet")), "with --boot only"),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL), initrd=FILE)), "bare kernel"),
        (Definition(table=Table.NONE, verity=True), "no room for hashes"),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL)), verity=True), "not told the root hash"),
        (
            Definition(boot=BootOptions(ways=Ways(uefi=Uefi.SYSTEMD_BOOT), cmdline="quiet rw"), verity=True),
            "found rw",
        ),
        (
            Definition(boot=BootOptions(ways=Ways(uefi=Uefi.SYSTEMD_BOOT), cmdline="roothash=1"), verity=True),
            "found roothash=1",
        ),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL), loader=FILE)), "bare kernel"),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL), cmdline="quiet")), "bare kernel"),
        (Definition(root=RootOptions(label="\udcff")), "UTF-8"),
        (Definition(boot=BootOptions(serial=True)), "serial console"),
        (Definition(boot=BootOptions(loader_dir="x")), "with --boot only"),
        (Definition(boot=BootOptions(ways=Ways(bios=Bios.GRUB), loader=FILE)), "use --loader-dir"),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.UKI), bios_home=Home.ROOT)), "--bios-home"),
        (Definition(boot=BootOptions(ways=Ways(bios=Bios.GRUB)), sector_size=4096), "sectors of 512 bytes"),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL), serial=True)), "bare kernel"),
        (Definition(boot=BootOptions(ways=Ways(Bios.GRUB, Uefi.KERNEL), loader=FILE)), "bare kernel"),
        (Definition(table=Table.MBR, verity=True), "known by its type"),
        (
            Definition(boot=BootOptions(ways=Ways(bios=Bios.SYSLINUX), bios_home=Home.ROOT), verity=True),
            "the root's own hash",
        ),
        (Definition(table=Table.NONE, partitions=(PartitionDefinition(mount="/", rest=True),)), "size of the whole"),
        (Definition(partitions=(PartitionDefinition(size=MiB),) * 129), "at most 128 partitions, found 129"),
        (Definition(partitions=(PartitionDefinition(directories=("/a/../b",)),)), "an absolute path within"),
        (Definition(partitions=(PartitionDefinition(mount="/", files=(("x", "/.."),)),)), "an absolute path within"),
        (Definition(partitions=(PartitionDefinition(mount="/", in_table=False),)), "a start and an image"),
    ],
)
def test_contradictions_are_refused(definition: Definition, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        definition.check()


def test_what_agrees_is_taken() -> None:
    Definition().check()
    Definition(table=Table.NONE, size=MiB, root=RootOptions(size=MiB)).check()
    Definition(table=Table.NONE, size=MiB, partitions=(PartitionDefinition(mount="/", rest=True),)).check()
    Definition(partitions=(PartitionDefinition(size=MiB),) * 128).check()
    Definition(boot=BootOptions(ways=Ways(uefi=Uefi.KERNEL), kernel=FILE)).check()
    Definition(
        boot=BootOptions(ways=Ways(uefi=Uefi.SYSTEMD_BOOT), kernel=FILE, initrd=FILE, loader=FILE, cmdline="quiet")
    ).check()


def test_every_option_and_the_tree_change_the_seed() -> None:
    plain = Definition()
    changed = [
        replace(plain, table=Table.NONE),
        replace(plain, sector_size=4096),
        replace(plain, size=MiB),
        replace(plain, time_s=0),
        replace(plain, root=RootOptions(label="other")),
        replace(plain, root=RootOptions(journal=0)),
        replace(plain, boot=BootOptions(cmdline="quiet")),
        replace(plain, boot=BootOptions(kernel=FILE)),
    ]
    seeds = {each.identity_seed(b"tree") for each in [plain, *changed]} | {plain.identity_seed(b"other tree")}
    assert len(seeds) == len(changed) + 2
    assert plain.identity_seed(b"tree") == Definition().identity_seed(b"tree")


def test_what_came_later_changes_no_identity_unless_it_is_asked_for() -> None:
    """The same input makes the same disk as before those options were there."""
    plain = Definition()
    assert plain.identity_seed(b"tree").hex() == "a1205b5c5c648f06cdb7055ee5601294c3aa538c1f22598af2d0b400f6dee4ac"
    for more in (
        {"alignment": 512},
        {"disk_id": "0x1"},
        {"partitions": (PartitionDefinition(mount="/"),)},
    ):
        assert replace(plain, **more).identity_seed(b"tree") != plain.identity_seed(b"tree")


def test_a_named_file_counts_by_its_size_and_not_by_its_name() -> None:
    def seed(name: str, data: bytes) -> bytes:
        return Definition(boot=BootOptions(kernel=NamedContent(name, BytesContent(data)))).identity_seed(b"tree")

    assert seed("/a/kernel", b"one") == seed("/b/kernel", b"two")
    assert seed("/a/kernel", b"one") != seed("/a/kernel", b"longer")


def test_a_given_seed_is_all_that_counts_and_a_random_one_is_new() -> None:
    given = Definition(seed="text")
    assert given.identity_seed(b"a") == replace(given, size=MiB).identity_seed(b"b")
    assert given.identity_seed(b"a") != Definition(seed="other").identity_seed(b"a")
    random = Definition(seed="random")
    assert random.identity_seed(b"a") != random.identity_seed(b"a")


def test_where_a_loader_lives_follows_from_what_is_asked_for() -> None:
    both = BootOptions(ways=Ways(Bios.SYSLINUX, Uefi.KERNEL), cmdline="quiet", initrd=FILE)
    for definition, home, partition in (
        (Definition(), None, False),
        (Definition(boot=BootOptions(ways=Ways(uefi=Uefi.UKI))), None, True),
        (Definition(boot=BootOptions(ways=Ways(bios=Bios.GRUB))), Home.ROOT, False),
        (Definition(boot=BootOptions(ways=Ways(bios=Bios.GRUB), bios_home=Home.BOOT)), Home.BOOT, True),
        (Definition(boot=BootOptions(ways=Ways(bios=Bios.GRUB)), verity=True), Home.BOOT, True),
        (Definition(boot=both), Home.ROOT, True),
    ):
        definition.check()
        assert definition.bios_home is home
        assert definition.has_boot_partition is partition


def test_where_loaders_are_found_says_nothing_of_the_disk() -> None:
    ways = Ways(bios=Bios.GRUB)
    seeds = {
        Definition(boot=BootOptions(ways=ways, loader_dir=each)).identity_seed(b"tree") for each in (None, "a", "b")
    }
    assert len(seeds) == 1
    assert Definition(boot=BootOptions(ways=Ways(bios=Bios.SYSLINUX))).identity_seed(b"tree") not in seeds
