"""Trees on the host: all they hold, by whose rule, and nothing where it fails."""

import contextlib
import errno
import fcntl
import io
import os
import stat
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from blockwright.errors import NotFound, UsageError
from blockwright.tree import extract_target, extract_write
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.extract import KEEP, ME, Extraction, ExtractOptions, Owner, extract
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from blockwright.tree.tar import read_tar_stream
from tests.support.everything import everything
from tests.support.tarmaker import archive, header, member
from tests.support.trees import PatternContent, trees

ROOT = os.geteuid() == 0
OURS = {"uid", "gid"} if not ROOT else set()
ACL = struct.pack(
    "<I" + "HHI" * 5,
    2,
    *(1, 6, -1 % 2**32),
    *(2, 4, 12),
    *(4, 4, -1 % 2**32),
    *(16, 4, -1 % 2**32),
    *(32, 4, -1 % 2**32),
)
"""Read and write for the owner, read for user 12 and all others."""


def directory(**entries: Node) -> Directory:
    return Directory(entries={os.fsencode(name): node for name, node in entries.items()})


def file(data: bytes = b"x", mode: int = 0o644) -> File:
    return File(mode, content=BytesContent(data))


def below(path: Path) -> list[str]:
    return sorted(os.listdir(path)) if path.exists() else []


class Failing(Content):
    """A content that cannot be read."""

    def __init__(self) -> None:
        super().__init__(5)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        raise OSError(5, "Input/output error")


@pytest.mark.skipif(not ROOT, reason="needs root for owners, devices and attributes")
def test_everything(tmp_path: Path) -> None:
    tree = everything(large=50)
    del tree.entries[b"far"], tree.entries[b"old"]  # of which the host's file system decides
    tree.entries[b"shared"].permissions = 0o774  # as its access list has it
    done = extract(tree, str(tmp_path / "out"), ExtractOptions(KEEP, specials=True))
    assert not done.left_out
    assert compare_trees(tree, read_directory(tmp_path / "out"), contents=True) == []
    assert below(tmp_path) == ["out"]


@pytest.mark.skipif(not ROOT, reason="needs root for owners")
@pytest.mark.parametrize("node", [file(mode=0o4755), Directory(), Symlink(b"to"), Special(stat.S_IFIFO)])
@pytest.mark.parametrize("ids", [(0xFFFF_FFFF, 5), (5, 0xFFFF_FFFF)])
def test_an_owner_that_the_host_takes_for_none_is_refused(tmp_path: Path, node: Node, ids: tuple[int, int]) -> None:
    node.uid, node.gid = ids
    tree = directory(below=directory(here=node))
    options = ExtractOptions(KEEP, specials=True)
    with pytest.raises(UsageError, match=r"below/here: owner: expected ids from 0 to 4294967294, found .*4294967295"):
        extract(tree, str(tmp_path / "out"), options)
    assert below(tmp_path) == []
    extract(tree, str(tmp_path / "out"), ExtractOptions(Owner(uid=1, gid=2), specials=True))
    status = (tmp_path / "out/below/here").lstat()
    assert (status.st_uid, status.st_gid) == (1, 2)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees(max_nodes=12, kinds={"file", "directory", "symlink"}))
def test_any_tree(tmp_path_factory: pytest.TempPathFactory, tree: Directory) -> None:
    top = tmp_path_factory.mktemp("extract") / "out"
    extract(tree, str(top), ExtractOptions(ME))
    for path in [top, *top.rglob("*")] if ROOT else []:
        assert path.lstat().st_uid == os.geteuid()
    if ROOT:
        found = read_directory(top)
        ignore = {"uid", "gid", "permissions", "xattrs", "mtime_ns"}  # the host's own rules, and its range
        assert compare_trees(tree, found, contents=True, ignore=ignore) == []


def test_a_link_is_made_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    before = outside.stat()
    link = Symlink(os.fsencode(outside))
    tree = directory(link=link, same=link, f=file())
    extract(tree, str(tmp_path / "out"))
    assert os.readlink(tmp_path / "out" / "link") == str(outside)
    assert (tmp_path / "out" / "link").lstat().st_ino == (tmp_path / "out" / "same").lstat().st_ino
    assert (outside.stat(), below(outside)) == (before, [])  # in this order: to list it is to read it


def test_hard_links(tmp_path: Path) -> None:
    node = file(b"one")
    tree = directory(a=node, d=directory(b=node), z=node)
    extract(tree, str(tmp_path / "out"))
    assert {(tmp_path / "out" / name).stat().st_ino for name in ("a", "d/b", "z")} == {
        (tmp_path / "out" / "a").stat().st_ino
    }
    assert (tmp_path / "out" / "a").stat().st_nlink == 3


def test_holes(tmp_path: Path) -> None:
    content = PatternContent(64 << 20, ((1 << 20, 5000), (60 << 20, 100)))
    extract(directory(f=File(content=content), h=File(content=PatternContent(9 << 20, ()))), str(tmp_path / "out"))
    assert (tmp_path / "out" / "f").stat().st_size == 64 << 20
    assert (tmp_path / "out" / "f").stat().st_blocks * 512 < 1 << 20
    assert (tmp_path / "out" / "h").stat().st_size == 9 << 20


@pytest.mark.parametrize("force", [False, True])
def test_bodies_that_pass_once_are_moved(tmp_path: Path, force: bool) -> None:
    data = archive(
        member(b"a", b"one", mode=0o640, mtime=5),
        header(b"d/b", kind=b"1", link=b"a"),
        member(b"gone", b"x" * 3000),
        member(b"gone", b"last"),
        header(b"l", kind=b"2", link=b"a"),
        header(b"k", kind=b"1", link=b"l"),
    )
    out = tmp_path / "out"
    if force:
        (out / "d").mkdir(parents=True)
        (out / "a").symlink_to("/etc/passwd")
        (out / "d" / "b").write_bytes(b"old")
    for _ in range(1 + force):
        with Extraction(str(out), ExtractOptions(ME, force=force)) as extraction:
            extraction.write(read_tar_stream(io.BytesIO(data).read, extraction.place))
    assert below(out) == ["a", "d", "gone", "k", "l"]
    assert [(out / name).read_bytes() for name in ("a", "d/b", "gone")] == [b"one", b"one", b"last"]
    assert (out / "a").stat().st_nlink == (out / "k").lstat().st_nlink == 2
    assert (stat.S_IMODE((out / "a").stat().st_mode), (out / "a").stat().st_mtime) == (0o640, 5)


# -- owners ----------------------------------------------------------------------------------------------------------


def test_set_user_id_goes_without_its_owner(tmp_path: Path) -> None:
    tree = directory(f=file(mode=0o6755), d=Directory(0o3777))
    extract(tree, str(tmp_path / "out"), ExtractOptions(ME))
    assert stat.S_IMODE((tmp_path / "out" / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out" / "d").stat().st_mode) == 0o1777


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_owners_by_rule(tmp_path: Path) -> None:
    tree = directory(f=File(0o4755, 12, 34), l=Symlink(b"x", uid=5, gid=6))
    for number, (owner, expected, mode) in enumerate(
        [(KEEP, (12, 34), 0o4755), (Owner(uid=7, gid=8), (7, 8), 0o755), (ME, (0, 0), 0o755)]
    ):
        out = tmp_path / str(number)
        extract(tree, str(out), ExtractOptions(owner))
        found = (out / "f").stat()
        assert ((found.st_uid, found.st_gid), stat.S_IMODE(found.st_mode)) == (expected, mode)
    assert (tmp_path / "0" / "l").lstat().st_uid == 5


def test_special_files(tmp_path: Path) -> None:
    tree = directory(p=Special(stat.S_IFIFO, 0o622), f=file())
    done = extract(tree, str(tmp_path / "out"))
    assert (dict(done.left_out), below(tmp_path / "out")) == ({"special files": 1}, ["f"])
    with pytest.raises(UsageError, match="expected no special files with --strict, found 1, the first at p"):
        extract(tree, str(tmp_path / "strict"), ExtractOptions(strict=True))
    assert below(tmp_path) == ["out"]
    extract(tree, str(tmp_path / "made"), ExtractOptions(specials=True))
    assert (tmp_path / "made" / "p").stat().st_mode == stat.S_IFIFO | 0o622


def test_attributes_that_grant_go_without_their_owner(tmp_path: Path) -> None:
    granting = {b"security.capability": b"x", b"trusted.a": b"1", b"system.posix_acl_access": ACL}
    tree = directory(f=File(xattrs=granting))
    assert dict(extract(tree, str(tmp_path / "out"), ExtractOptions(ME)).left_out) == {"extended attributes": 3}
    with pytest.raises(UsageError, match=r"f: extended attribute security\.capability: only with --owner keep"):
        extract(tree, str(tmp_path / "strict"), ExtractOptions(ME, strict=True))
    assert below(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="attributes are Linux's")
@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSPC, errno.EPERM])
def test_attributes_that_the_host_does_not_take_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "setxattr", refused)
    tree = directory(f=File(xattrs={b"user.a": b"1", b"user.b": b"2"}))
    assert dict(extract(tree, str(tmp_path / "out")).left_out) == {"extended attributes": 2}
    with pytest.raises(UsageError, match=rf"f: extended attribute user\.a: {os.strerror(number).lower()}"):
        extract(tree, str(tmp_path / "strict"), ExtractOptions(strict=True))
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        extract(tree, str(tmp_path / "failed"))
    assert below(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="attributes are Linux's")
def test_attributes_come_before_permissions_that_forbid_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its owner's right to write, a file gets no attributes of its owner's; root would not be told."""
    modes = []
    monkeypatch.setattr(os, "setxattr", lambda where, *_, **__: modes.append(stat.S_IMODE(os.stat(where).st_mode)))
    tree = directory(f=File(0o444, xattrs={b"user.a": b"1"}), d=Directory(0o555, xattrs={b"user.a": b"1"}))
    extract(tree, str(tmp_path / "out"), ExtractOptions(ME))
    assert modes == [0o700, 0o600]


@pytest.mark.skipif(not ROOT or sys.platform != "linux", reason="links have only attributes that root may set")
def test_attributes_of_a_link_are_its_own(tmp_path: Path) -> None:
    tree = directory(a=file(), l=Symlink(b"a", xattrs={b"trusted.a": b"1"}))
    assert not extract(tree, str(tmp_path / "out"), ExtractOptions(KEEP)).left_out
    assert os.listxattr(tmp_path / "out/l", follow_symlinks=False) == ["trusted.a"]
    assert os.listxattr(tmp_path / "out/a") == []


# -- bytes and times -------------------------------------------------------------------------------------------------


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: written(fd, data[:1000], offset))
    content = PatternContent(3 << 20, ((0, 5000), (1 << 20, 3333)))
    extract(directory(f=File(content=content)), str(tmp_path / "out"))
    assert (tmp_path / "out/f").read_bytes() == content.read(0, content.size)


@pytest.mark.parametrize(
    ("time_ns", "least", "most"), [(1 << 94, 1 << 31, 1 << 34), (-(1 << 94), -(1 << 32), -1)], ids=["late", "early"]
)
def test_times_that_the_host_has_no_number_for(tmp_path: Path, time_ns: int, least: int, most: int) -> None:
    tree = directory(f=File(mtime_ns=time_ns), l=Symlink(b"x", mtime_ns=time_ns))
    extract(tree, str(tmp_path / "out"))
    for name in ("f", "l"):
        assert least <= (tmp_path / "out" / name).lstat().st_mtime <= most


def test_progress_ends_where_everything_is_written(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    tree = directory(a=file(b"x" * 5), b=directory(c=file(b"y" * (2 << 20))), d=file(b"z"))
    with Extraction(str(tmp_path / "out"), ExtractOptions()) as extraction:
        extraction.write(tree, lambda done, total: told.append((done, total)))
    total = 5 + (2 << 20) + 1
    assert told == [(5, total), (5 + (1 << 20), total), (5 + (2 << 20), total), (total, total)]


# -- targets ---------------------------------------------------------------------------------------------------------


def test_an_empty_directory_is_filled_in_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    inode = out.stat().st_ino
    extract(Directory(0o750, os.geteuid(), os.getegid(), 10**9, entries={b"f": file()}), str(out))
    assert (out.stat().st_ino, below(out), stat.S_IMODE(out.stat().st_mode)) == (inode, ["f"], 0o750)
    assert out.stat().st_mtime_ns == 10**9


def test_what_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, kind, message in (
        ("file", UsageError, "expected a directory to extract to"),
        ("full", UsageError, "expected an empty directory; --force"),
        ("dangling", UsageError, "a link to nothing"),
        ("no/such", NotFound, "no such directory"),
        ("no/..", UsageError, "expected the name of a directory"),
    ):
        with pytest.raises(kind, match=message):
            extract(directory(f=file()), str(tmp_path / name))
    assert below(tmp_path) == ["dangling", "file", "full"]
    assert below(tmp_path / "full") == ["x"]


@pytest.mark.parametrize("exists", [False, True])
def test_what_fails_leaves_nothing(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    closed = Directory(0o000, os.geteuid(), os.getegid(), entries={b"f": file(mode=0)})
    tree = directory(a=closed, b=Directory(0o555, os.geteuid(), os.getegid()), y=file(), z=File(content=Failing()))
    with pytest.raises(OSError, match="Input/output error") as caught:
        extract(tree, str(out))
    assert caught.value.filename == "z"
    assert (out.exists(), below(out)) == (exists, [])
    assert below(tmp_path) == (["out"] if exists else [])


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def stopped() -> None:
        with Extraction(str(tmp_path / "out"), ExtractOptions()) as extraction:
            extraction.place(3, ((0, 3),), lambda buffer: None)
            raise Stop

    with pytest.raises(Stop):
        stopped()
    assert below(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "no")])
def test_a_directory_that_was_not_found_empty_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, force: bool
) -> None:
    """A listing that fails, or is interrupted, tells nothing of what the directory holds."""
    (tmp_path / "kept").write_bytes(b"kept")

    def failing(_where: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", failing)
        with pytest.raises(type(error)):
            extract(directory(a=file()), str(tmp_path), ExtractOptions(force=force))
    assert below(tmp_path) == ["kept"]


def test_what_appeared_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def extracted() -> None:
        with Extraction(str(out), ExtractOptions()) as extraction:
            extraction.write(directory(a=file()))
            out.mkdir()
            (out / "kept").touch()

    with pytest.raises(UsageError, match="out: appeared while it was made, and is left as it is"):
        extracted()
    assert (below(tmp_path), below(out)) == (["out"], ["kept"])


def test_a_failure_to_open_what_was_just_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def interrupted(path: object, *arguments: object, **options: object) -> int:
        if str(path).endswith(".part"):
            monkeypatch.setattr(os, "open", opened)
            raise KeyboardInterrupt
        return opened(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(directory(a=file()), str(tmp_path / "out"))
    assert below(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 255, "\u00e4" * 127, "\u20ac" * 85], ids=["1", "2", "3"])
def test_any_name_that_the_host_takes(tmp_path: Path, name: str) -> None:
    extract(directory(a=file()), str(tmp_path / name))
    assert below(tmp_path) == [name]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a host that lists descriptors")
@pytest.mark.parametrize("last", [file(), File(content=Failing())])
@pytest.mark.parametrize("exists", [False, True])
def test_no_descriptor_stays_open(tmp_path: Path, last: File, exists: bool) -> None:
    if exists:
        (tmp_path / "out").mkdir()
    before = os.listdir("/proc/self/fd")
    with contextlib.suppress(OSError):
        extract(directory(a=file(), d=directory(z=last)), str(tmp_path / "out"))
    assert os.listdir("/proc/self/fd") == before


def test_what_is_under_way_is_nobody_elses(tmp_path: Path) -> None:
    """Names have no permissions for others before they have those of the tree."""

    class Looking(Content):
        def read_into(self, offset: int, buffer: memoryview, /) -> None:
            buffer[:] = bytes(len(buffer))
            seen.extend(stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in tmp_path.rglob("*"))

    seen: list[int] = []
    tree = directory(d=Directory(0o777, entries={b"f": File(0o666, content=Looking(5))}))
    before = os.umask(0)
    try:
        with Extraction(str(tmp_path / "out"), ExtractOptions(ME)) as extraction:
            extraction.place(3, ((0, 3),), lambda buffer: None)
            extraction.write(tree)
    finally:
        os.umask(before)
    assert len(seen) == 5  # the target, its stage, a body in it, a directory, and the file
    assert not any(seen)
    assert stat.S_IMODE((tmp_path / "out/d/f").stat().st_mode) == 0o666


# -- force -----------------------------------------------------------------------------------------------------------


def test_force_replaces_names_and_follows_none(tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (out / "f").symlink_to(outside / "secret")
    (out / "d").symlink_to(outside)
    (out / "kept").write_bytes(b"kept")
    (out / "e").mkdir()
    (out / "e" / "kept").touch()
    (out / "old").write_bytes(b"a longer old body")
    link = file(b"l")
    tree = directory(f=file(b"new"), d=directory(g=file()), e=directory(h=link), old=file(b"new"), z=link)
    out.chmod(mode := 0o751)
    extract(tree, str(out), ExtractOptions(force=True))
    assert below(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    assert below(out) == ["d", "e", "f", "kept", "old", "z"]
    assert (below(out / "d"), below(out / "e")) == (["g"], ["h", "kept"])
    assert [(out / name).read_bytes() for name in ("f", "old", "kept")] == [b"new", b"new", b"kept"]
    assert (out / "z").stat().st_nlink == 2
    extract(tree, str(out), ExtractOptions(force=True))
    assert (out / "z").stat().st_nlink == 2
    assert stat.S_IMODE(out.stat().st_mode) == mode  # what was there keeps what it was, and gets what it lacks


def test_force_keeps_a_directory_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UsageError, match="d: expected no directory in a file's place"):
        extract(directory(d=file()), str(tmp_path), ExtractOptions(force=True))


def test_what_fails_with_force_is_told_by_a_name(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(OSError, match="Input/output"):
        extract(directory(a=file(), z=File(content=Failing())), str(tmp_path), ExtractOptions(force=True))
    left = below(tmp_path)
    assert [name for name in left if not name.startswith(".blockwright-incomplete-")] == ["a", "x"]
    assert len(left) == 3


# -- hostile trees ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"../x", b"a\0b"])
def test_names_that_are_none(tmp_path: Path, name: bytes) -> None:
    for node in (file(), Directory(), Symlink(b"x")):
        with pytest.raises(Exception, match="extract: expected a name"):
            extract(Directory(entries={name: node}), str(tmp_path / "out"))
    assert below(tmp_path) == []


def test_depth(tmp_path: Path) -> None:
    top = here = Directory()
    for _ in range(extract_write.MAX_DEPTH):
        here.entries[b"d"] = here = Directory()
    with pytest.raises(Exception, match="at most 512 directories"):
        extract(top, str(tmp_path / "out"))
    assert below(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_names_that_the_host_takes_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    """A file system that folds case, played by one that is given folded names."""
    (tmp_path / "out").mkdir()
    if force:
        (tmp_path / "out" / "x").touch()
    for call in ("open", "mkdir", "lstat", "rename", "symlink"):
        monkeypatch.setattr(os, call, folding(getattr(os, call)))
    for tree in (
        directory(A=file(), a=file()),
        directory(A=Directory(), a=Directory()),
        directory(A=file(), a=Symlink(b"x")),
    ):
        with pytest.raises(UsageError, match="a: expected each name once"):
            extract(tree, str(tmp_path / "out"), ExtractOptions(force=force))
        if force:
            for name in below(tmp_path / "out"):
                if name.lower() == "a":
                    path = tmp_path / "out" / name
                    path.rmdir() if path.is_dir() else path.unlink()


def folding(call):
    def folded(*names, **options):
        return call(*[name.lower() if name in (b"A", b"a") else name for name in names], **options)

    return folded


def test_what_a_killed_process_left_goes_with_the_next_extraction_to_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract_target, "LEFT_S", -1.0)
    names = [f".out.{number}123456789abcdef.part" for number in range(3)]
    for name in (*names, ".outs.0123456789abcdef.part", ".out.0123.part"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below/file").write_text("half")
    (tmp_path / names[0]).chmod(0o500)
    used = os.open(tmp_path / names[1], os.O_RDONLY)
    fcntl.flock(used, fcntl.LOCK_EX)
    outside = tmp_path / ".out.3123456789abcdef.part"
    outside.symlink_to(".out.0123.part")
    tree = directory(a=file())
    extract(tree, str(tmp_path / "out"))
    os.close(used)
    assert below(tmp_path) == sorted([names[1], outside.name, ".outs.0123456789abcdef.part", ".out.0123.part", "out"])
    assert below(tmp_path / ".out.0123.part") == ["below"]


def test_what_was_made_just_now_or_by_others_is_no_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has just made one has not locked it yet, and what is another's may be under way on another host."""
    left = tmp_path / ".out.0123456789abcdef.part"
    left.mkdir()
    extract(directory(a=file()), str(tmp_path / "out"))
    monkeypatch.setattr(extract_target, "LEFT_S", -1.0)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    os.rename(tmp_path / "out", tmp_path / "other")
    extract(directory(a=file()), str(tmp_path / "out"), ExtractOptions(ME))
    assert below(tmp_path) == [left.name, "other", "out"]


def test_one_under_way_is_left_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_target, "LEFT_S", -1.0)
    with Extraction(str(tmp_path / "out"), ExtractOptions(ME)) as first:
        with Extraction(str(tmp_path / "out"), ExtractOptions(ME)) as second:
            second.write(directory(b=file()))
        os.rename(tmp_path / "out", tmp_path / "other")
        first.write(directory(a=file()))
    assert below(tmp_path / "out") == ["a"]


@pytest.mark.parametrize("name", ["out", "there"])
def test_a_place_where_nothing_can_be_made_is_named_as_it_was_given(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "no", ".out.0123456789abcdef.part")

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(PermissionError) as caught:
        extract(directory(a=file()), str(tmp_path / name))
    assert caught.value.filename == str(tmp_path / name)
