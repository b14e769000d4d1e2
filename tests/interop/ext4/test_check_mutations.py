"""Our check and `e2fsck -fn` agree on whether an image is clean, whichever single field of it is changed.

A failure names the image's recipe and the seed of each mutation; `Inventory` and `mutate` make it again from them.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import FormatError
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.layout import Compat
from blockwright.fs.ext4.options import Ext4Options, Features
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.profiles import TYPES, profile
from tests.fuzz.ext4_target import explore
from tests.support.e2fs import FIXED, debugfs, e2fsck_complains, make_source, mke2fs
from tests.support.ext4 import write_plan
from tests.support.ext4_mutations import Inventory, Mutation, differences, mutate
from tests.support.tools import run, tool

SMALL = ("-b", "1024", "-N", "256")
GROUPS = ("-b", "1024", "-N", "512", "-g", "1024")
RECIPES: dict[str, tuple[str, ...]] = {
    "ext2": ("3M", "-t", "ext2", *SMALL),
    "ext2-4k": ("4M", "-t", "ext2", "-b", "4096", "-N", "256"),
    "ext2-revision-0": ("3M", "-r", "0", *SMALL, "-O", "none"),
    "ext3": ("4M", "-t", "ext3", *SMALL, "-J", "size=1"),
    "ext4": ("4M", "-t", "ext4", *SMALL, "-J", "size=1"),
    "ext4-4k": ("12M", "-t", "ext4", "-b", "4096", "-N", "256", "-J", "size=4"),
    "ext4-groups": ("4M", "-t", "ext4", *GROUPS, "-O", "^has_journal", "-G", "2"),
    "ext4-no-flex-bg": ("4M", "-t", "ext4", *GROUPS, "-O", "^has_journal,^flex_bg"),
    "ext4-no-checksums": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal,^metadata_csum"),
    "ext4-group-checksums": ("4M", "-t", "ext4", *GROUPS, "-O", "^has_journal,^metadata_csum,uninit_bg"),
    "ext4-inline-data": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal,inline_data"),
    "ext4-ea-inode": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal,ea_inode"),
    "ext4-bigalloc": ("8M", "-t", "ext4", *SMALL, "-O", "^has_journal,bigalloc", "-C", "4096"),
    "ext4-meta-bg": ("4M", "-t", "ext4", *GROUPS, "-O", "^has_journal,meta_bg,^resize_inode"),
    "ext4-quota": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal,quota"),
    "ext4-quota-project": (
        "3M",
        "-t",
        "ext4",
        *SMALL,
        "-O",
        "^has_journal,quota,project,metadata_csum_seed",
        "-E",
        "quotatype=usrquota:grpquota:prjquota",
    ),
    "ext4-orphan-file": ("4M", "-t", "ext4", *SMALL, "-J", "size=1", "-O", "orphan_file"),
    "ext4-orphan-file-no-checksums": (
        "4M",
        "-t",
        "ext4",
        *SMALL,
        "-J",
        "size=1",
        "-O",
        "orphan_file,^metadata_csum",
    ),
    "ext4-mmp": ("4M", "-t", "ext4", *SMALL, "-O", "^has_journal,mmp"),
    "ext4-mmp-no-checksums": ("4M", "-t", "ext4", *SMALL, "-O", "^has_journal,mmp,^metadata_csum"),
    "ext4-casefold": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal,casefold"),
    "ext4-encrypt-verity": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal,encrypt,verity"),
    "ext4-large-dir": ("4M", "-t", "ext4", "-b", "2048", "-N", "256", "-O", "^has_journal,large_dir"),
    "ext4-128-byte-inodes": ("3M", "-t", "ext4", *SMALL, "-O", "^has_journal", "-I", "128"),
    "ext4-sparse-super2": ("4M", "-t", "ext4", *GROUPS, "-O", "^has_journal,sparse_super2,^resize_inode"),
}
INDEXED = ("ext2", "ext4", "ext4-no-checksums", "ext4-large-dir", "ext4-casefold")
"""Recipes of which there is a second image, whose directories e2fsck turned into hash trees."""
OURS = {
    "ours-1k": Ext4Options(block_size=1024, seed=b"mutations"),
    "ours-4k": Ext4Options(seed=b"mutations"),
    "ours-no-journal": Ext4Options(
        block_size=2048, seed=b"mutations", features=Features(compat=Features().compat & ~Compat.has_journal)
    ),
    "ours-ext2": Ext4Options(block_size=1024, seed=b"mutations", features=TYPES["ext2"]),
    "ours-ext3-128": Ext4Options(block_size=1024, seed=b"mutations", features=TYPES["ext3"], inode_size=128),
    "ours-linux-2.6.32": Ext4Options(
        block_size=1024, seed=b"mutations", features=profile("ext4", ["linux-2.6.32"]).features
    ),
}
ALL = [*RECIPES, *(f"{name}-index" for name in INDEXED), *OURS]
SAMPLE = 7
"""Mutations of each image in an ordinary run, about 200 in all."""
MANY = 60
"""Mutations of each image under CI, about 1,800 in all."""

EXCEPTIONS = [
    # (field, what we find): all that e2fsck calls clean and we do not.
    # e2fsck does not look at the depth of nodes below the inode; Linux refuses the file.
    ("extent header: eh_depth", "ext4.map.extent-depth"),
    # e2fsck takes the journal's blocks from the copy in the superblock without a word; Linux does not mount.
    ("reserved inode: i_links_count", "ext4.journal.superblock"),
    # e2fsck compares 32 bits of it with the journal's blocks.
    ("reserved inode: i_size_high", "ext4.journal.inode"),
    # It takes the size from the copy in the superblock without a word; Linux does not mount.
    ("reserved inode: i_size_lo", "ext4.journal.inode"),
    # It takes a map of bad blocks that it cannot read for none.
    ("reserved inode: i_flags", "ext4.map.extent-header"),
    # It does not look at a quota file of another kind; Linux does not mount.
    ("quota header: header[0]", "ext4.quota.file"),
    # Linux wants 64 bytes of a descriptor with 64bit, and does not mount.
    ("superblock: s_desc_size", "ext4.superblock.unusable"),
    # e2fsck sets the bits of the tables of uninitialised groups by itself; Linux would give those blocks away.
    ("block bitmap: byte", "ext4.block-bitmap.bits"),
]


def excepted(mutation: Mutation, rules: set[str]) -> bool:
    """Whether we have a reason to complain where e2fsck is content."""
    return any(mutation.name.startswith(field) and rule in rules for field, rule in EXCEPTIONS)


# -- the two verdicts ------------------------------------------------------------------------------------------


def our_rules(image: Path) -> set[str]:
    """The rules that our check finds broken."""
    with FileDevice(image) as device:
        try:
            return {finding.rule for finding in check(device)}
        except FormatError as error:
            return {type(error).__name__}


class Image:
    """An image that is mutated in place and mended after each look."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.inventory = Inventory(path.read_bytes())

    def compare(self, number: int, judge: Callable[[Path], set[str]] = our_rules) -> str | None:
        """What differs for one mutation, or None."""
        mutation = mutate(self.inventory, f"{self.name}.{number}")
        theirs, rules = self.verdicts(mutation.patches, judge)
        if theirs == bool(rules) or (not theirs and excepted(mutation, rules)):
            return None
        return f"{self.name}: {mutation}: e2fsck {'complains' if theirs else 'is content'}, we find {sorted(rules)}"

    def verdicts(
        self, patches: list[tuple[int, bytes, bytes]], judge: Callable[[Path], set[str]] = our_rules
    ) -> tuple[bool, set[str]]:
        """Whether e2fsck complains of the image with (offset, old, new) patched, and which rules we find broken."""
        self._patch([(offset, new) for offset, _old, new in patches])
        try:
            theirs, rules = e2fsck_complains(self.path), judge(self.path)
            with FileDevice(self.path) as device, contextlib.suppress(FormatError):
                explore(device, verify=False)
        finally:
            self._patch([(offset, old) for offset, old, _new in patches])
        return theirs, rules

    def _patch(self, patches: list[tuple[int, bytes]]) -> None:
        with self.path.open("r+b") as file:
            for offset, data in patches:
                file.seek(offset)
                file.write(data)


# -- images ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A function that makes the image of a name, once."""
    folder = tmp_path_factory.mktemp("mutations")
    source = make_source(folder / "source", small=True)
    made: dict[str, Image] = {}

    def image(name: str) -> Image:
        if name not in made:
            made[name] = Image(name, make_image(name, folder, source))
        return made[name]

    return image


def make_image(name: str, folder: Path, source: Path) -> Path:
    path = folder / f"{name}.img"
    if name in OURS:
        tree_image = mke2fs(folder / f"{name}.tree", *RECIPES["ext4-no-checksums"], source=source)
        with read.open(FileDevice(tree_image)) as fs:
            return write_plan(plan(fs.tree(), OURS[name]), path)
    recipe = RECIPES[name.removesuffix("-index")]
    size, *arguments = recipe
    mke2fs(path, size, *arguments, source=source)
    if name == "ext4-ea-inode":
        value = folder / "value"
        value.write_bytes(bytes(range(256)) * 4)
        debugfs(path, *(f"ea_set -f {value} /{file} user.large" for file in ("file0", "file1", "few")), write=True)
    if name.endswith("-index"):
        run([tool("e2fsck"), "-fyD", path], ok=(0, 1), env=FIXED)
    elif "quota" in name or name == "ext4-ea-inode":  # mke2fs and debugfs do not account for what they add
        run([tool("e2fsck"), "-fy", path], ok=(0, 1), env=FIXED)
    return path


# -- tests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_images_are_clean(name, images):
    image = images(name)
    assert not e2fsck_complains(image.path)
    assert our_rules(image.path) == set()


@pytest.mark.parametrize("name", ALL)
def test_same_verdict_on_a_sample(name, images):
    image = images(name)
    assert [found for number in range(SAMPLE) if (found := image.compare(number))] == []


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_same_verdict_on_many(name, images):
    image = images(name)
    assert [found for number in range(SAMPLE, SAMPLE + MANY) if (found := image.compare(number))] == []


FSCK = 0xE24D4D50


@pytest.mark.parametrize(
    ("name", "structure", "field", "value", "rule"),
    [
        ("ext2", "superblock", "s_desc_size", 2048, "superblock.desc-size"),
        ("ext2", "superblock", "s_desc_size", 1024, None),
        ("ext4-no-checksums", "superblock", "s_desc_size", 0, "superblock.desc-size"),
        ("ext4-no-checksums", "superblock", "s_feature_compat", 0x78, "superblock.features"),  # lazy_bg
        (
            "ext4-no-checksums",
            "block bitmap",
            "byte 383",
            0xC0,
            "block-bitmap.bits",
        ),  # the last block
        ("ext4-no-checksums", "block bitmap", "byte 383", 0x00, "block-bitmap.padding"),  # what is behind it
        ("ext4-groups", "pointer", "level 1", 7, "resize.inode"),  # a copy of a reserved block
        ("ext4-mmp", "mmp", "magic", 5, "mmp.block"),
        ("ext4-mmp", "mmp", "checksum", 5, "mmp.block"),
        ("ext4-mmp", "mmp", "sequence", 5, None),  # somebody has it in use, or had
        ("ext4-mmp", "mmp", "sequence", FSCK - 1, None),
        ("ext4-mmp", "mmp", "sequence", FSCK, "mmp.sequence"),
        ("ext4-mmp", "mmp", "sequence", FSCK + 1, "mmp.sequence"),
        ("ext4-mmp-no-checksums", "mmp", "magic", 5, "mmp.block"),
        ("ext4-mmp-no-checksums", "mmp", "checksum", 5, None),
        ("ext4-orphan-file", "orphans", "checksum", 5, "orphan.checksum"),
        ("ext4-orphan-file-no-checksums", "orphans", "checksum", 5, "orphan.checksum"),
        ("ext4-quota", "quota header", "header[16]", 5, None),  # flags
        ("ext4-quota", "quota header", "header[20]", 0, "quota.file"),  # blocks in use
        ("ext4-quota", "quota header", "header[20]", 3, "quota.file"),
        ("ext4-quota", "quota header", "header[20]", 99, "quota.file"),
        ("ext4-quota", "quota header", "header[24]", 99, "quota.file"),  # the first free block
        ("ext4-quota", "quota header", "header[28]", 99, "quota.file"),
    ],
)
def test_same_verdict_on_a_field(name, structure, field, value, rule, images):
    inventory = images(name).inventory
    place = next(place for place in inventory.structures[structure] if place.name == field)
    data = bytearray(inventory.data)
    data[place.offset : place.offset + place.width] = value.to_bytes(place.width, "little")
    if place.fix is not None:
        place.fix(data)
    theirs, rules = images(name).verdicts(differences(inventory.data, data))
    assert theirs == (rule is not None)
    assert rules == (set() if rule is None else {f"ext4.{rule}"})


@pytest.mark.parametrize(
    ("name", "commands", "rule"),
    [
        ("ext4", "sif <8> size {over}", "journal.inode"),
        ("ext4", "sif <8> size {less}", "journal.inode"),
        ("ext4-4k", "sif <8> size {more}", "journal.inode"),
        ("ext3", "sif <8> size {more}", None),  # e2fsck looks at the superblock's copy of map and size
        ("ext3", "sif <9> flags 0x2000", None),  # of inodes kept for nothing, nobody reads imagic
        ("ext3", "sif <12> flags 0x2000", "inode.flags"),
        ("ext4-4k", "sif file4097 flags 0xc0000\nsif file4097 blocks 2", None),  # huge_file: in blocks
        ("ext4-4k", "sif file4097 flags 0xc0000", "inode.block-count"),
        ("ext4-encrypt-verity", "sif file4097 flags 0x180000\nsif file4097 size 300", None),  # hashes behind the end
        ("ext4-encrypt-verity", "sif file4097 size 300", "inode.size"),
        ("ext2", "zap_block -f link900 -p 97 0\nsif link900 size 1024", "inode.symlink"),  # no NUL ends it
        ("ext2", "zap_block -f link900 -o 900 -l 123 -p 116 0\nsif link900 size 1023", None),
        ("ext4", "sif many links_count 1", "links.count"),
        ("ext4-index", "sif many links_count 1", None),  # as where there are too many to count
        ("ext2", "ssv inodes_per_group 252\nssv inodes_count 252", "superblock.inodes-per-group"),
        ("ext4-no-checksums", "feature metadata_csum_seed", "superblock.features"),
        ("ext4-group-checksums", "set_bg 3 flags 7\nset_bg 3 checksum calc", "group.flags"),  # the last group
        (
            "ext4-bigalloc",
            "\n".join(f"sif file4096 block[{word}] {to}" for word, to in enumerate((0x2F30A, 4, 0, 0, 2)))
            + "".join(f"\nsif file4096 block[{word}] {to}" for word, to in ((6, 2), (7, 2), (8, 8002))),
            "map.cluster",  # of a cluster of the file one half is in another of the disk
        ),
        ("ext4-orphan-file", "sif <12> size 33792", "orphan.size"),
        ("ext4-orphan-file-no-checksums", "feature orphan_present", "orphan.feature"),
        ("ext4-orphan-file-no-checksums", "zap_block -f <12> -o 8 -l 1 -p 20 1", "orphan.entries"),
        (
            "ext4-orphan-file-no-checksums",
            "feature orphan_present\nzap_block -f <12> -o 8 -l 1 -p 20 1",
            "orphan.entries",
        ),
    ],
)
def test_same_verdict_behind_debugfs(name, commands, rule, images, tmp_path):
    image = images(name)
    path = tmp_path / "image"
    path.write_bytes(image.inventory.data)
    size = image.inventory.volume.inode(8).size
    block = image.inventory.bs
    debugfs(path, commands.format(over=size + 1, more=size + block, less=size - block), write=True)
    rules = our_rules(path)
    assert e2fsck_complains(path) == (rule is not None) == bool(rules)
    assert rule is None or f"ext4.{rule}" in rules


def test_the_comparison_can_fail(images):
    image = images("ext4")
    blind = [image.compare(number, lambda path: set()) for number in range(20)]
    assert sum(found is not None for found in blind) > 5
    nervous = [image.compare(number, lambda path: {"ext4.nothing"}) for number in range(20)]
    assert sum(found is not None for found in nervous) > 2
