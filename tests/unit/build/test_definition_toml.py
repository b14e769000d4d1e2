"""Definitions in TOML: what they say, that they read back as written, and errors with file, line and key."""

import os
from uuid import UUID

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.boot.kinds import parse_ways
from blockwright.build import keys
from blockwright.build.definition import BootOptions, Definition, Home, PartitionDefinition, RootOptions, Table
from blockwright.build.partition import FILE_SYSTEMS
from blockwright.build.run import named_file
from blockwright.build.toml_read import parse_partition, parse_toml
from blockwright.build.toml_write import write_toml
from blockwright.cli.build import build
from blockwright.cli.definition import TALK, key_of
from blockwright.errors import BlockwrightError, FormatError, NotFound, UsageError
from blockwright.units import GiB, MiB

TEXT = """\
# a disk
table = "gpt"
size = "4G"
sources = ["rootfs", "more.tar", "/abs", "mem:1M", "-"]
boot = "systemd-boot"
cmdline = '''
[[partition]]
quiet'''

[[partition]]
type = "efi"
size = 268435456

[[partition]]   # the root
mount = "/"
size = "rest"
free = 0
attributes = ["growfs", "read-only"]
files = ["motd:/etc/motd"]
uuid = "11111111-2222-3333-4444-555555555555"
"""


def test_a_file_says_a_disk():
    asked = parse_toml(TEXT, "/where/disk.toml")
    made = asked.definition()
    assert asked.sources == ("/where/rootfs", "/where/more.tar", "/abs", "mem:1M", "-")
    assert (made.table, made.size, made.boot.ways) == (Table.GPT, 4 * GiB, parse_ways("systemd-boot"))
    assert made.partitions == (
        PartitionDefinition(type="esp", size=256 * MiB),
        PartitionDefinition(
            mount="/",
            rest=True,
            attributes=("growfs", "read-only"),
            files=(("/where/motd", "/etc/motd"),),
            uuid=UUID("11111111-2222-3333-4444-555555555555"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("size = 1\nsiez = 2\n", ":2", "siez: is not known: did you mean size?"),
        ("size = true\n", ":1", "size: expected a number"),
        ("\nsize = '12 parsecs'\n", ":2", "size: size '12 parsecs'"),
        ("table = 'apm'\n", ":1", "table: expected one of gpt, mbr, none, found 'apm'"),
        ("free = 2.5\n", ":1", "free: expected a percentage"),
        ("verity = 'yes'\n", ":1", "verity: expected true or false, found 'yes'"),
        ("\n\nkernel = 'nowhere'\n", ":3", "kernel: /where/nowhere: no such file"),
        ("boot = 'lilo'\n", ":1", "boot: boot: expected none or one or two of"),
        ("a = \n", ":1", "definition: invalid value"),
        ("size = 1\nexclude = ['a',\n", ":2", "definition: "),
        ("partition = 3\n", ":1", "partition: expected tables"),
        ("[[partition]]\nmount = '/'\n[[partition]]\n\nsizee = '1M'\n", ":5", "partition 2: sizee: is not known"),
        ("[[partition]]\nmount = 'home'\n", ":1", "expected an absolute path to mount at, found 'home'"),
        ("[[partition]]\nmount = '/a/../b'\n", ":1", "expected an absolute path to mount at"),
        ("[[partition]]\nfile-system = 'zfs'\n", ":2", "file-system: expected one of"),
        ("[[partition]]\nsize = '1M'\nattributes = ['shiny']\n", ":1", "attribute 'shiny'"),
        ("[[partition]]\ntype = 'swap'\n", ":1", "expected a size, since nothing"),
        ("[[partition]]\nsize = '1M'\nmaximum = '2M'\n", ":1", "expected either a size, or a minimum"),
        ("[[partition]]\nsize = 'rest'\nminimum = '3M'\nmaximum = '2M'\n", ":1", "a maximum of at least 3145728"),
        ("[[partition]]\nuuid = 'x'\n", ":2", "uuid: expected a UUID, found 'x'"),
        ("[[partition]]\nfiles = ['a']\n", ":2", "files: expected SOURCE:/TARGET, found '/where/a'"),
        (f"size = 0x{'f' * 9000}\n", ":1", "size: expected a number from 0 on, found a number beyond 64 bits"),
        (f"sector-size = 0x{'f' * 9000}\n", ":1", "sector-size: expected a number"),
        (f"size = {'9' * 9000}\n", "", "definition: "),
        ("partition = [{size = 'rest', typ = 'swap'}]\n", ":1", "partition 1: typ: is not known: did you mean type?"),
    ],
)
def test_errors_name_file_line_and_key(text, place, said):
    with pytest.raises(FormatError) as caught:
        parse_toml(text, "/where/disk.toml").definition()
    assert str(caught.value).startswith(f"/where/disk.toml{place}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("label = 'x'\n[[partition]]\nmount = '/'\n", "", "expected the root's options in its partition"),
        ("[[partition]]\nmount = '/home'\n", "", 'expected a partition to mount at "/"'),
        ("[[partition]]\nmount = '/'\n[[partition]]\nmount = '/'\n", ":4", "each mount point once"),
        ("table = 'none'\n[[partition]]\nmount = '/'\n[[partition]]\nsize = 1\n", ":1", "one partition without"),
        ("table = 'mbr'\n[[partition]]\nmount = '/'\nhybrid = '0x0c'\n", ":4", "expected a GPT for a hybrid MBR"),
        ("[[partition]]\nmount = '/'\nlogical = true\n", ":3", "expected an MBR for a logical partition"),
        ("verity = true\n[[partition]]\ntype = 'home'\nsize = 1\n", ":1", 'expected a partition to mount at "/"'),
        (f"verity = true\n[[partition]]\nmount = '/'\nuuid = '{UUID(int=1)}'\n", ":1", "no UUID of"),
        ("\nserial = true\n", ":2", "of use with --boot only"),
        ("size = '1G'\n\ncmdline = 'quiet'\n", ":3", "of use with --boot only"),
        ("verity = true\nboot = 'uki'\ncmdline = 'rw'\n", ":3", "kernel command line: expected --verity to say"),
        ("size = '9G'\nfree = '10%'\n", ":2", "either a size or a share of free space"),
        ("sector-size = 4096\n[[partition]]\nmount = '/'\nblock-size = '1k'\n", ":4", "at least a sector of 4096"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_place(text, place, said):
    with pytest.raises(FormatError, match=f"^/disk.toml{place}: .*{said}"):
        parse_toml(text, "/disk.toml").definition()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("hostname = 'a b'", "hostname: expected up to 64 letters"),
        ("exclude = ['ok', '[']", "exclude: expected ] behind the ["),
        ("map-ids = ['x']", "map-ids: map of ids: expected FIRST"),
        ("umask = '9'", "umask: "),
        ("manifest = ['nowhere']", "manifest: "),
    ],
)
def test_what_is_wrong_with_a_change_has_its_place(tmp_path, key, said):
    (tmp_path / "tree").mkdir()
    (tmp_path / "disk.toml").write_text(f"timezone = 'UTC'\n{key}\n")

    def error(*options):
        with pytest.raises(BlockwrightError) as caught:
            build.main(["-f", str(tmp_path / "disk.toml"), *options], standalone_mode=False)
        return str(caught.value)

    words = ["-o", str(tmp_path / "x.img"), str(tmp_path / "tree")]
    assert error(*words).startswith(f"{tmp_path}/disk.toml:2: {said}")
    if key.startswith("hostname"):
        assert error(*words, "--hostname", "c d").startswith("hostname: ")


def test_what_the_command_line_says_has_no_place_in_the_file(tmp_path):
    (tmp_path / "disk.toml").write_text("size = '1G'\n[[partition]]\nmount = '/'\n")

    def said(*options):
        with pytest.raises(BlockwrightError) as caught:
            build.main(["-f", str(tmp_path / "disk.toml"), "-o", "x", str(tmp_path), *options], standalone_mode=False)
        return str(caught.value).removeprefix(str(tmp_path))

    assert said("--table", "none", "--boot", "uki").startswith("build: a bare file system cannot")
    assert said("--partition", "mount=/").startswith("build: expected each mount point once")
    assert said("--partition", "size=1M,logical=true").startswith("partition 'none': expected an MBR")


def test_words_of_the_command_line_are_the_same_keys():
    given = parse_partition("mount=/,size=rest,attributes=growfs,attributes=read-only,weight=5,in-table,minimum=1M")
    assert keys.partition_of(given) == keys.partition_of(
        parse_partition(
            '{mount = "/", size = "rest", attributes = ["growfs", "read-only"], weight = 5, minimum = "1M"}'
        )
    )
    for text in ("", "mount", "=1", "{mount = }", "nonsense=1", "weight=x", "hashes=maybe", "size=1M,size=2M"):
        with pytest.raises(UsageError):
            keys.partition_of(parse_partition(text))


def test_every_option_has_its_key_and_every_key_its_option():
    options = {key_of(param) for param in build.params if isinstance(param, click.Option)} - set(TALK)
    assert set(keys.DISK) <= options
    others = {"output", "format", "compress", "level", "platform", "layers", "limit", "xattrs", "image"}
    assert others <= options - set(keys.DISK)
    values = "".join(f"{name} = 1\n" for name in sorted(options - set(keys.DISK)))
    assert set(parse_toml(values, "x", options).others) == options - set(keys.DISK)
    # The reverse for partitions: each of their keys is a word of --partition.
    for name, key in keys.PARTITION.items():
        word = {keys.flag: "true", keys.number: "7", keys.size: "4k", keys.share: "20%"}.get(key.parse, "x")
        assert name in parse_partition(f"{name}={word}")


# -- what is written reads back --------------------------------------------------------------------------------

_SIZES = st.integers(1, 1 << 45)
_WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
_SHARES = st.integers(0, 9500).map(lambda value: value / 10000) | st.floats(0, 0.95)
_PATHS = st.lists(st.sampled_from(["home", "var", "ü b", 'x"y', "a\\b"]), max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@st.composite
def _partitions(draw):
    fields = {
        "mount": draw(st.none() | _PATHS),
        "sources": draw(st.lists(st.sampled_from(["/a", "/b c", "-", "mem:1M", "nbd://h/x"]), max_size=2).map(tuple)),
        "directories": draw(st.lists(_PATHS, max_size=2).map(tuple)),
        "files": draw(st.lists(st.tuples(st.sampled_from(["/q", "/w:e"]), _PATHS), max_size=2).map(tuple)),
        "file_system": draw(st.none() | st.sampled_from(FILE_SYSTEMS)),
        "size": draw(st.none() | _SIZES),
        "rest": draw(st.booleans()),
        "minimum": draw(st.just(0) | _SIZES),
        "maximum": draw(st.none() | _SIZES),
        "weight": draw(st.integers(0, 1_000_000)),
        "padding": draw(st.just(0) | _SIZES),
        "padding_maximum": draw(st.none() | _SIZES),
        "padding_weight": draw(st.integers(0, 1000)),
        "start": draw(st.none() | st.integers(0, 1 << 40)),
        "alignment": draw(st.none() | st.sampled_from([512, 4096, MiB])),
        "in_table": draw(st.booleans()),
        "type": draw(st.none() | st.sampled_from(["esp", "swap", "0x0c", "root-x86-64"])),
        "name": draw(st.none() | _WORDS),
        "uuid": draw(st.none() | st.uuids()),
        "attributes": draw(st.lists(st.sampled_from(["growfs", "active", "bit-7"]), max_size=2).map(tuple)),
        "logical": draw(st.booleans()),
        "hybrid": draw(st.none() | st.just("0x0c")),
        "hashes": draw(st.booleans()),
        "label": draw(_WORDS),
        "file_system_uuid": draw(st.none() | st.uuids()),
        "free": draw(_SHARES),
        "block_size": draw(st.none() | st.sampled_from([1024, 4096])),
        "inodes": draw(st.none() | st.integers(0, 1 << 30)),
        "inode_size": draw(st.none() | st.sampled_from([128, 256])),
        "reserved": draw(st.none() | _SHARES),
        "journal": draw(st.none() | st.just(0) | _SIZES),
        "compat": draw(st.lists(_WORDS, max_size=2).map(tuple)),
        "image": draw(st.none() | st.just(named_file(__file__))),
    }
    made = PartitionDefinition()
    # One field after the other, so that what is allowed by itself stays.
    for name, value in draw(st.permutations(sorted(fields.items(), key=lambda item: item[0]))):
        from dataclasses import replace

        changed = replace(made, **{name: value})
        try:
            changed.check()
        except UsageError:
            try:
                made.check()
            except UsageError:
                made = changed  # nothing is lost: it was not allowed before either
            continue
        made = changed
    return made


@st.composite
def _definitions(draw):
    partitions = tuple(draw(st.lists(_partitions(), max_size=3)))
    kernel = draw(st.none() | st.just(named_file(__file__)))
    root = (
        RootOptions()
        if partitions
        else RootOptions(
            size=draw(st.none() | _SIZES),
            free=draw(_SHARES),
            label=draw(_WORDS),
            block_size=draw(st.sampled_from([1024, 2048, 4096])),
            inodes=draw(st.none() | st.integers(11, 1 << 30)),
            reserved=draw(st.none() | _SHARES),
            journal=draw(st.none() | st.just(0) | _SIZES),
            fs=draw(st.sampled_from(["ext2", "ext3", "ext4"])),
            inode_size=draw(st.none() | st.sampled_from([128, 256])),
            compat=tuple(draw(st.lists(_WORDS, max_size=2))),
        )
    )
    return Definition(
        table=draw(st.sampled_from(Table)),
        sector_size=draw(st.sampled_from([512, 4096])),
        size=draw(st.none() | _SIZES),
        root=root,
        boot=BootOptions(
            ways=parse_ways(draw(st.sampled_from(["none", "grub", "syslinux,uki", "kernel"]))),
            kernel=kernel,
            loader_dir=draw(st.none() | st.just("/loaders")),
            cmdline=draw(_WORDS),
            serial=draw(st.booleans()),
            grub_modules=draw(st.booleans()),
            esp_size=draw(st.none() | _SIZES),
            bios_home=draw(st.none() | st.sampled_from(Home)),
        ),
        verity=draw(st.booleans()),
        partitions=partitions,
        alignment=draw(st.none() | st.sampled_from([512, 4096, MiB])),
        disk_id=draw(st.none() | _WORDS),
        seed=draw(st.none() | _WORDS),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_definitions(), st.lists(st.sampled_from(["/a", "-", "mem:1M"]), max_size=2).map(tuple))
def test_what_is_written_reads_back_as_the_same(definition, sources):
    try:
        for part in definition.partitions:
            part.check()
    except UsageError:
        return
    text = write_toml(definition, sources)
    asked = parse_toml(text, "/elsewhere/x.toml")
    made = keys.definition_of(asked.disk, asked.partitions)
    assert (made, asked.sources) == (definition, sources)
    assert write_toml(made, asked.sources) == text


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                "[[partition]]\n",
                "size",
                "=",
                '"1M"',
                "\n",
                "mount",
                "'/'",
                "[",
                "]",
                "{",
                "}",
                '"""',
                "x",
                "9" * 30,
                "partition",
            ]
        ),
        max_size=30,
    ).map("".join)
)
def test_any_text_is_a_value_or_an_error_of_ours(text):
    try:
        parse_toml(text, os.devnull).definition()
    except (FormatError, UsageError, NotFound):
        pass
    except BlockwrightError as error:
        raise AssertionError(f"not an error that is documented: {error!r}") from error
