"""genimage's files, read: what becomes of each option, and what is refused with its place."""

import pytest

from blockwright.build.genimage import read_genimage
from blockwright.build.genimage.parse import MAX_DEPTH, parse
from blockwright.build.toml_read import Asked
from blockwright.errors import FormatError
from blockwright.units import KiB, MiB


def disk(hdimage: str = "", partitions: str = "partition a { size = 1M }", beside: str = "", inside: str = "") -> str:
    return f"{beside}\nimage disk.img {{\n{inside}\nhdimage {{ {hdimage} }}\n{partitions}\n}}\n"


def read(text: str, path: str = "/where/board.cfg") -> Asked:
    asked = read_genimage(text, path)
    asked.definition()
    return asked


def refused(text: str, said: str, line: int) -> None:
    with pytest.raises(FormatError) as caught:
        read(text)
    assert str(caught.value).startswith(f"/where/board.cfg:{line}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["banana", "0x100000000", "-1", "1_0"])
@pytest.mark.parametrize("kind", ["mbr", "gpt"])
def test_a_signature_that_is_none_has_its_place(text: str, kind: str) -> None:
    refused(
        disk(f"disk-signature = {text} partition-table-type = {kind}"),
        "disk-signature: expected a number of 32 bits",
        4,
    )


def test_signatures() -> None:
    for text, found in (("0x12", "00000012"), ("4294967295", "ffffffff"), ("random", None)):
        assert read(disk(f"disk-signature = {text}")).disk.get("disk-id") == found
    assert "disk-id" not in read(disk()).disk
    assert "disk-id" not in read(disk("disk-signature = 1 partition-table-type = gpt")).disk


def test_a_list_that_goes_on() -> None:
    vfat = 'files = { "a", b }\nfiles += { c }\nfiles+={d}\nfiles += "e"\nother-is = 1'
    text = disk(partitions="partition p { image = i }", beside=f"image i {{ vfat {{ {vfat} }} size = 1M }}")
    refused(text, "other-is: is not known in vfat", 5)
    (made,) = read(text.replace("other-is = 1", "")).partitions
    assert made.files == tuple((f"/where/input/{name}", f"/{name}") for name in "abcde")
    assert read(text.replace("other-is = 1", "files = x+y")).partitions[0].files == (("/where/input/x+y", "/x+y"),)


@pytest.mark.timeout(10)
def test_a_list_that_goes_on_and_on() -> None:
    """Each addition copied the list once."""
    vfat = f"files = {{ {'x ' * 200_000} }}" + "files += y " * 90_000
    text = disk(partitions="partition p { image = i }", beside=f"image i {{ vfat {{ {vfat} }} size = 1M }}")
    assert len(read_genimage(text, "x").partitions[0].files) == 290_000


@pytest.mark.timeout(10)
def test_files_are_many_where_images_are() -> None:
    """Each partition looked through all images for a file's name."""
    images = "".join(f"image i{number} {{}}\n" for number in range(18_000))
    partitions = f"partition p {{ image = {__file__} }}\n" * 18_000
    assert len(read_genimage(disk(partitions=partitions, beside=images), "x").partitions) == 18_000


def test_a_partition_is_no_smaller_than_its_image() -> None:
    def one(size: str, partition: str, disk_size: str = "size = 64M"):
        beside = f"image i {{ ext4 {{}} size = {size} }}"
        return disk(partitions=f"partition p {{\nimage = i {partition} }}", beside=beside, inside=disk_size)

    assert read(one("8M", "")).partitions[0].size == 8 << 20
    assert read(one("8M", "size = 8M")).partitions[0].size == 8 << 20
    assert read(one("8M", "size = 9M")).partitions[0].size == 9 << 20
    refused(one("8M", "size = 7M"), "partition p: expected a size of at least the 8388608 bytes of its image", 5)
    for partition, least in (("", 8), ("size = 7M", 8), ("size = 9M", 9)):
        (made,) = read(one("8M", f"autoresize = true {partition}")).partitions
        assert (made.rest, made.size, made.minimum) == (True, None, least << 20)
    assert read(one("200%", "")).partitions[0].free == 0.5
    for partition in ("size = 7M", "autoresize = true"):
        assert read(one("200%", partition)).partitions[0].free == 0


def test_sections_and_files_are_only_so_deep(tmp_path) -> None:
    path = tmp_path / "board.cfg"
    path.write_text('include("board.cfg")')
    with pytest.raises(
        FormatError, match=r"board.cfg: expected sections and files that include others at most 8 deep, found more"
    ):
        read_genimage(path.read_text(), str(path))
    (tmp_path / "empty").write_text("")
    for number, fits in ((64, True), (65, False)):
        text = disk(beside='include("empty")\n' * number)
        if fits:
            assert read(text, str(path)).partitions
        else:
            with pytest.raises(FormatError, match="include: expected at most 64 files, found more"):
                read(text, str(path))


def test_what_a_disk_is() -> None:
    asked = read(
        disk("partition-table-type = gpt disk-uuid = 11111111-2222-3333-4444-5555555555AA", inside="size = 8M")
    )
    guid = "11111111-2222-3333-4444-5555555555aa"
    assert asked.disk == {"table": "gpt", "alignment": 512, "size": 8 * MiB, "disk-id": guid}
    assert read(disk("gpt = true align = 64K")).disk == {"table": "gpt", "alignment": 64 * KiB}
    assert read(disk("partition-table-type = dos")).disk == {"table": "mbr", "alignment": 512}
    assert read(disk("gpt = false extended-partition = 4 gpt-location = 2s fill = true")).remarks == [
        "/where/board.cfg:4: fill: has no effect: the disk ends where it ends"
    ]


@pytest.mark.parametrize(
    ("hdimage", "said"),
    [
        ("align = 0", "hdimage: expected an align of whole sectors, found 0"),
        ("align = 100", "hdimage: expected an align of whole sectors, found 100"),
        ("align = { 1k, 2k }", "align: expected one value, found 2"),
        ("align = {}", "align: expected one value, found 0"),
        ("gpt = true gpt-no-backup = true", "hdimage: asks for a GPT elsewhere or without its backup"),
        ("gpt = true gpt-location = 1s", "hdimage: asks for a GPT elsewhere or without its backup"),
        ("extended-partition = 3", "hdimage: asks for another number of the extended partition, which is 4 here"),
        ("partition-table = false", "hdimage: asks for a table of kind none, which cannot be made"),
        ("gpt = perhaps", "gpt: expected true or false, found 'perhaps'"),
        ("disk-uuid = x", "disk-uuid: expected a UUID, found 'x'"),
        ("disk-signature = 4294967296", "disk-signature: expected a number of 32 bits"),
    ],
)
def test_what_a_disk_cannot_be(hdimage: str, said: str) -> None:
    refused(disk(hdimage), said, 4)


def test_images_of_a_file() -> None:
    refused(
        disk(beside="image a {}\nimage b {}\nimage a {}"), "image a: expected one image of that name, found two", 3
    )
    refused("x = 1" + disk(), "x: expected options within a section", 1)
    refused("x {}" + disk(), "x: expected image, flash or config", 1)
    with pytest.raises(FormatError, match=r"expected one image of type hdimage, found a, disk\.img"):
        read(disk(beside="image a { hdimage {} }"))
    with pytest.raises(FormatError, match="expected one image of type hdimage, found none"):
        read("image a { ext4 {} }")
    for inside, found in (("ext4 {} vfat {}", "ext4, vfat"), ("", "nothing"), ("tar {}", "tar")):
        text = disk(partitions="partition p { image = i }", beside=f"image i {{ {inside} }}")
        refused(text, f"image i: expected one of ext2, ext3, ext4, vfat and file, found {found}, which cannot", 1)
    refused(disk(partitions="partition p { image = disk.img }"), "and file, found hdimage, which cannot be made", 2)


def test_sizes_and_places_of_partitions() -> None:
    parts = f"""partition loader {{ in-partition-table = no image = {__file__} size = 100001 align = 1M }}
    partition more {{ in-partition-table = no image = {__file__} offset = 1M }}
    partition a {{ size = 1000 align = 4K }} partition b {{ size = 1000 }} partition c {{ size = 512 offset = 1M }}"""
    for kind, front in (("mbr", 4096), ("gpt", 5 * 4096)):
        made = read(disk(f"partition-table-type = {kind}", parts)).partitions
        assert [(each.start, each.size, each.alignment) for each in made] == [
            (0, 100001, None),
            (MiB, None, None),
            (front, 4096, 4096),
            (None, 1024, None),
            (MiB, 512, None),
        ]
        assert [each.in_table for each in made] == [False, False, True, True, True]
    for kind, front in (("mbr", 512), ("gpt", 34 * 512)):
        assert read(disk(f"partition-table-type = {kind}")).partitions[0].start == front
    refused(disk(partitions="partition p {}"), "partition p: partition 'none': expected a size", 5)


def test_what_a_table_says_of_partitions() -> None:
    marks = "bootable = yes read-only = on hidden = 1 no-automount = true"
    parts = f"partition p {{ size = 1M partition-type = 0xC {marks} }} partition q {{ size = 1M bootable = no }}"
    made = read(disk(partitions=parts)).partitions
    assert made[0].attributes == ("active", "read-only", "hidden", "no-auto")
    assert [(each.type, each.name, each.attributes) for each in made[1:]] == [(None, None, ())]
    assert made[0].type == "0x0c"
    for kind in ("gpt", "hybrid"):
        given = parts if kind == "hybrid" else parts.replace("partition-type = 0xC", "partition-type-uuid = U")
        made = read(disk(f"partition-table-type = {kind}", given)).partitions
        assert made[0].attributes == ("legacy-boot", "read-only", "hidden", "no-auto")
        assert [each.hybrid for each in made] == ["0x0c" if kind == "hybrid" else None, None]
        assert [each.type for each in made] == ["linux-generic" if kind == "hybrid" else "esp", "linux-generic"]
        assert [each.name for each in made] == ["p", "q"]
    refused(disk("gpt = 1", parts), "partition p: partition-type: expected one in a table of kind mbr or hybrid", 5)


def held(image: str, outer: str = "", partition: str = "") -> Asked:
    beside = f"image i {{ {image} {outer} }}"
    return read(disk(partitions=f"partition p {{ image = i {partition} }}", beside=beside))


def test_what_a_partition_holds_of_the_tree() -> None:
    config = 'config { rootpath = "tree" inputpath = "/in" other = 1 }\n'
    text = config + disk(partitions="partition p { image = i }", beside="image i { ext4 {} size = 1M MORE }")
    asked = read(text.replace("MORE", ""))
    assert (asked.sources, asked.partitions[0].mount) == (("/where/tree",), "/")
    assert asked.remarks == ["/where/board.cfg:1: other: has no effect"]
    asked = read(text.replace("MORE", "mountpoint = home/"))
    assert (asked.sources, asked.partitions[0].mount, asked.partitions[0].sources) == (
        (),
        None,
        ("/where/tree/home",),
    )
    asked = read(text.replace("MORE", "srcpath = x"))
    assert (asked.sources, asked.partitions[0].mount, asked.partitions[0].sources) == ((), None, ("/where/x",))
    asked = read(text.replace("MORE", "empty = true"))
    assert (asked.sources, asked.partitions[0].mount, asked.partitions[0].has_tree) == ((), None, False)
    vfat = 'vfat { label = "x\\y" files = { "a/b" } file c/d { image = "e" } }'
    (made,) = held(vfat, "size = 1M").partitions
    assert made.label == "xy"
    assert made.files == (("/where/input/a/b", "/b"), ("/where/input/e", "/c/d"))


def test_no_bytes_are_no_size_as_in_genimage() -> None:
    asked = read(disk(partitions="partition p { image = i size = 0 }", beside="image i { ext4 {} size = 1M }"))
    assert "size" not in read(disk(inside="size = 0")).disk
    assert asked.partitions[0].size == MiB


def test_sizes_of_images() -> None:
    assert [held("ext4 {}", f"size = {each}").partitions[0].size for each in ("1023", "1024")] == [512, 1024]
    shares = {"100%": 0.0, "125%": 0.2, "400%": 0.75, "9999%": 0.95}
    assert {each: held("ext4 {}", f"size = {each}").partitions[0].free for each in shares} == pytest.approx(shares)
    for text in ("99%", "-1%", "%", "99999%"):
        with pytest.raises(FormatError, match="size: expected at least 100%, found"):
            held("ext4 {}", f"size = {text}")


@pytest.mark.parametrize(
    ("image", "outer", "said"),
    [
        ("ext4 { root-owner = 1:2 }", "", "ext4: root-owner: asks for 1:2, which cannot be made here"),
        ("ext4 { }", "exec-post = true", "exec-post: asks for a program to run, and none is: 'true'"),
        ("vfat { file x {} }", "", "file x: expected the image that it is"),
        ("vfat { dir x {} }", "", "dir x: is not known in vfat"),
        ("vfat { file x { image = y colour = red } }", "", "colour: is not known in file"),
        ("ext4 { usage-type = x }", "colour = red", "colour: is not known in image"),
    ],
)
def test_what_an_image_cannot_be(image: str, outer: str, said: str) -> None:
    with pytest.raises(FormatError, match=rf"^/where/board\.cfg:1: {said}"):
        held(image, outer)


# -- the language --------------------------------------------------------------------------------------------------


def test_values() -> None:
    text = """a = 1 b = "x\\"y\\\\z" c = 'it"s ${not} \\' one' # d = 4
    d = { } e = { 1, "2" 3, } /* f = {
    */ f = a//b // g = 5
    a = 2 a += 3
    g = "two
    lines" h = 1"""
    found = parse(text, "x", str).options
    assert {name: each.values for name, each in found.items()} == {
        "a": ["2", "3"],
        "b": ['x"y\\z'],
        "c": ["it\"s ${not} ' one"],
        "d": [],
        "e": ["1", "2", "3"],
        "f": ["a//b"],
        "g": ["two\n    lines"],
        "h": ["1"],
    }
    assert [found[name].place for name in "adfgh"] == ["x:4", "x:2", "x:3", "x:5", "x:6"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("}", "x:1: expected an option or a section, found }"),
        ("a { } }", "x:1: expected an option or a section, found }"),
        ("\na b c", "x:2: a: expected = or {, found 'c'"),
        ("a )", "x:1: a: expected = or {, found ')'"),
        ("a = (", "x:1: expected a value, found ("),
        ("a = { b = c }", "x:1: expected a list of values, found ="),
        ("a = { b", "x:1: b: expected more, found the end of the file"),
        ("a", "x:1: a: expected more, found the end of the file"),
        ("a {\n b = 1", "x:1: a: expected a brace that closes it, found the end of the file"),
        ('include("f" {', 'x:1: include: expected ("FILE")'),
        ("include({)", 'x:1: include: expected ("FILE")'),
        ("\n\n/* a", "x:3: expected the end of the comment, found the end of the file"),
        ('\na = "b', "x:2: expected a word or a mark, found '\"b'"),
        ('a = "${b}"', "x:1: expected no variable of the environment, found '${b}'"),
    ],
)
def test_what_is_no_text_of_genimages(text: str, said: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(text, "x", str)
    assert str(caught.value) == said


def test_limits_of_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    for depth, fits in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
        text = "a {" * depth + "}" * depth
        if fits:
            assert parse(text, "x", str).sections
        else:
            with pytest.raises(FormatError, match="at most 8 deep, found more"):
                parse(text, "x", str)
    monkeypatch.setattr("blockwright.build.genimage.parse.MAX_ITEMS", 3)
    assert len(parse("a = 1 b = 2 c = 3", "x", str).options) == 3
    with pytest.raises(FormatError, match=r"^x:2: expected at most 3 options and sections"):
        parse("a = 1 b = 2 c = 3\nd = 4", "x", str)
    monkeypatch.undo()
    loaded: list[str] = []

    def load(path: str) -> str:
        loaded.append(path)
        return "b = 1"

    assert parse('a { include("c/d") }', "/x/y", load).sections[0].options["b"].place == "/x/c/d:1"
    assert loaded == ["/x/c/d"]


def test_an_extended_partition_that_is_asked_for() -> None:
    beside = f"partition x {{ in-partition-table = no image = {__file__} offset = 64M }}"
    parts = beside + "".join(f"partition p{number} {{ size = 1M }}" for number in range(5))
    for hdimage, logical in (
        ("", 0),
        ("extended-partition = 0", 0),
        ("extended-partition = 4", 2),
        ("gpt = true", 0),
    ):
        made = read(disk(hdimage, parts)).partitions
        assert [each.logical for each in made] == [False] * (6 - logical) + [True] * logical
    assert not any(each.logical for each in read(disk("gpt = true extended-partition = 4", parts)).partitions)
    few = "".join(f"partition p{number} {{ size = 1M }}" for number in range(3))
    assert not any(each.logical for each in read(disk("extended-partition = 4", few)).partitions)
