"""The files inside an image for fsspec, and so for pandas, Dask, pyarrow and all that opens what fsspec does.

``blockwright://disk.img:1/etc/hosts`` is a file in the first partition of disk.img: the image is the shortest leading
part of the path that is a file or device of the host, with what selects a part of it. An image that is elsewhere is
given by ``fsspec.filesystem("blockwright", image="nbd://…")``, whose paths are then those within the image.

Installed with the extra ``fsspec``, and found by fsspec through its entry points.

Knows: fsspec's questions (fsspec/spec.py, 2024.2 and later). Refuses to know: any file system, any format.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat as stat_module
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from fsspec.spec import AbstractFileSystem
from fsspec.transaction import Transaction

from blockwright.device.file import FileDevice
from blockwright.device.fileobject import DeviceFile
from blockwright.errors import NotFound, UsageError
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.reader import FileSystem, Stat
from blockwright.resolve import open_device, open_editor, open_file_system
from blockwright.tree.content import EMPTY, Content, DeviceRange
from blockwright.tree.node import Directory, File

_PART: Final = re.compile(r":(?:[0-9]{1,4}|[0-9]+s?,[0-9]+s?)$")
_KINDS: Final = {stat_module.S_IFREG: "file", stat_module.S_IFDIR: "directory", stat_module.S_IFLNK: "link"}
_COPIED: Final = 1 << 20
_MODES: Final = ("rb", "wb", "xb", "ab")


class _Together(Transaction):
    """Files written within ``with fs.transaction`` reach the image in one session: all of them, or none."""

    fs: Any

    def complete(self, commit: bool = True) -> None:  # noqa: FBT001, FBT002  # as fsspec calls it
        """Commit or forget what was written, and end the transaction."""
        fs, files = self.fs, list(self.files)
        self.files.clear()
        try:
            if commit and files:
                with fs.editing() as editor:
                    for each in files:
                        each.put(editor)
        finally:
            for each in files:
                each.discard()
            fs._intrans = False  # noqa: SLF001  # fsspec has no other way to say so
            fs._transaction = None  # noqa: SLF001  # the same
            self.fs = None


class ImageFileSystem(AbstractFileSystem):
    """The file system on an image or on a part of one; what is written is committed file by file.

    ``image`` is an address as the command takes it, ``partition`` settles every doubt, ``format`` names the image's
    format where its first bytes are not to. Images that name other files are refused those. The image is open while
    a call runs or a file is open to be read, so nobody else is kept away for longer. A change needs the image for
    itself and raises InUse otherwise: close what is read before what is written. Names that are not UTF-8 are told
    with surrogate escapes.

    Paths that are missing raise FileNotFoundError; everything else is raised as ``blockwright`` raises it.
    """

    protocol = "blockwright"
    root_marker = "/"
    transaction_type = _Together

    def __init__(
        self,
        image: str = "",
        *,
        partition: int | None = None,
        format: str | None = None,  # noqa: A002  # what the command's option is called
        force_unlocked: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        if not image:
            raise UsageError("fsspec: expected an image, as in blockwright://disk.img:1/etc/hosts or image='…'")
        self.image = image
        self._partition = partition
        self._format = format
        self._force_unlocked = force_unlocked
        self._lock = threading.Lock()
        self._held: FileSystem | None = None
        self._holders = 0

    # -- which image, which path -----------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Return the path within the image, absolute and without a slash at its end."""
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = os.fspath(path)
        if text.startswith("blockwright://"):
            text = _split(text)[1]
        return "/" + text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        """Return which image a URL means."""
        return {"image": _split(path)[0]} if path.startswith("blockwright://") else {}

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path within the image."""
        return (
            name if name.startswith("blockwright://") else f"blockwright://{self.image}{self._strip_protocol(name)}"
        )

    # -- the image, open -------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[FileSystem]:
        """Have the file system, open for as long as anybody reads it."""
        files = self._acquire()
        try:
            yield files
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, str(error)) from None
        finally:
            self._release()

    @contextmanager
    def editing(self) -> Iterator[Editor]:
        """Have the file system open for changes: all are committed behind the body, or none where it raises."""
        device = self._open_device(writable=True)
        try:
            editor = open_editor(device, source=self.image)
        except BaseException:
            device.close()
            raise
        try:
            with editor:
                yield editor
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, str(error)) from None

    def _open_device(self, *, writable: bool) -> Any:
        try:
            return open_device(
                self.image,
                writable=writable,
                partition=self._partition,
                form=self._format,
                force_unlocked=self._force_unlocked,
                alone=writable,
            )
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, str(error)) from None

    def _acquire(self) -> FileSystem:
        with self._lock:
            if self._held is None:
                device = self._open_device(writable=False)
                try:
                    self._held = open_file_system(device, source=self.image)
                except BaseException:
                    device.close()
                    raise
            self._holders += 1
            return self._held

    def _release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0 and self._held is not None:
                held, self._held = self._held, None
                held.close()

    # -- what is there ---------------------------------------------------------------------------------------

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """Return name, size, type and inode metadata; of what a symbolic link leads to, where it leads somewhere."""
        path = self._strip_protocol(path)
        with self.reading() as files:
            return _info(files, path)

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:  # noqa: FBT001, FBT002  # fsspec's
        """Return what ``info`` tells of each name in a directory, or of the file itself; or the names alone."""
        path = self._strip_protocol(path)
        with self.reading() as files:
            found = _info(files, path)
            if found["type"] != "directory":
                return [found] if detail else [path]
            entries = files.entries(files.resolve(os.fsencode(path)))
            paths = sorted((f"{path.rstrip('/')}/{os.fsdecode(each.name)}", each.inode) for each in entries)
            return [_told(files, each, inode) for each, inode in paths] if detail else [each for each, _ in paths]

    def walk(self, path: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Walk as fsspec does, with the image opened once."""
        with self.reading():
            yield from super().walk(path, *args, **kwargs)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Find as fsspec does, with the image opened once."""
        with self.reading():
            return super().find(path, *args, **kwargs)

    def lexists(self, path: str, **_options: Any) -> bool:
        """Say whether there is anything of that name, a link to nowhere too."""
        try:
            with self.reading() as files:
                files.stat(os.fsencode(self._strip_protocol(path)), follow=False)
        except FileNotFoundError:
            return False
        return True

    def created(self, path: str) -> datetime:
        """Return when the inode was made. Raises NotImplementedError where the file system does not keep that."""
        found = self.info(path)["created"]
        if found is None:
            raise NotImplementedError("the file system keeps no times of creation")
        return datetime.fromtimestamp(found, UTC)

    def modified(self, path: str) -> datetime:
        """Return when the file was last written to."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def _open(self, path: str, mode: str = "rb", *_args: Any, autocommit: bool = True, **_options: Any) -> Any:
        """Return a file object: its bytes as they are now, or a new file, which is committed when it is closed."""
        path = self._strip_protocol(path)
        if mode not in _MODES:
            raise NotImplementedError(f"mode: expected one of {', '.join(_MODES)}, found {mode[:16]!r}")
        if mode == "rb":
            return self._open_to_read(path)
        with self.reading() as files:
            _check_new(files, path, exclusive=mode == "xb")
        return Writing(self, path, append=mode == "ab", autocommit=autocommit)

    def _open_to_read(self, path: str) -> Reading:
        files = self._acquire()
        try:
            _expect_file(_info(files, path), path)
            found = DeviceFile(files.open(os.fsencode(path)))
        except NotFound as error:
            self._release()
            raise FileNotFoundError(errno.ENOENT, str(error)) from None
        except BaseException:
            self._release()
            raise
        return Reading(self, path, found)

    # -- changes ---------------------------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **_options: Any) -> None:  # noqa: FBT001, FBT002  # fsspec's
        """Make a directory, and those before it. Raises FileExistsError."""
        path = self._strip_protocol(path)
        if self.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        with self.editing() as editor:
            editor.mkdir(os.fsencode(path), Directory(mtime_ns=time.time_ns()), parents=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002  # as fsspec calls it
        """Make a directory and those before it."""
        if not (exist_ok and self.isdir(path)):
            self.mkdir(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        path = self._strip_protocol(path)
        with self.editing() as editor:
            if editor.files.stat(os.fsencode(path), follow=False).kind != stat_module.S_IFDIR:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if next(iter(editor.files.entries(editor.files.resolve(os.fsencode(path)))), None) is not None:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            editor.rm(os.fsencode(path))

    def rm_file(self, path: str) -> None:
        """Remove a file or a link."""
        self.rm(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:  # noqa: FBT001, FBT002  # as fsspec's
        """Remove files, and directories with all below them where ``recursive``: all of them, or none."""
        whole = recursive and maxdepth is None
        paths = self.expand_path(path, recursive=recursive and not whole, maxdepth=maxdepth)
        with self.editing() as editor:
            for each in sorted(paths, reverse=True):  # what is in a directory before it
                name = os.fsencode(each)
                if not recursive and editor.files.stat(name, follow=False).kind == stat_module.S_IFDIR:
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), each)
                editor.rm(name, recursive=whole)

    def mv(self, path1: str, path2: str, *_args: Any, **_options: Any) -> None:
        """Move a file, or a directory with all below it, as one change."""
        with self.editing() as editor:
            editor.mv(os.fsencode(self._strip_protocol(path1)), os.fsencode(self._strip_protocol(path2)))

    def cp_file(self, path1: str, path2: str, **_options: Any) -> None:
        """Copy a file's bytes, or make a directory that is like one."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        with self.open(path2, "wb") as target, self.open(path1, "rb") as source:  # which is closed first
            while data := source.read(_COPIED):
                target.write(data)

    def touch(self, path: str, truncate: bool = True, **_options: Any) -> None:  # noqa: FBT001, FBT002  # fsspec's
        """Have an empty file, or with ``truncate`` False one whose time is now, whatever it holds."""
        path = self._strip_protocol(path)
        with self.editing() as editor:
            _write(editor, path, None if not truncate else EMPTY, append=False)


class Reading(io.BufferedReader):
    """A file of an image, open for reading; the image stays open until it is closed."""

    def __init__(self, fs: ImageFileSystem, path: str, raw: DeviceFile) -> None:
        super().__init__(raw, 1 << 18)
        self.fs, self.path = fs, path
        self.size = raw.seek(0, os.SEEK_END)
        raw.seek(0)

    def close(self) -> None:
        """Close the file, and the image where nobody else reads it."""
        if not self.closed:
            try:
                super().close()
            finally:
                self.fs._release()  # noqa: SLF001  # this module's own


class Writing(io.BufferedRandom):
    """A file that is being written, outside the image until it is closed or its transaction ends.

    A body of ``with`` that raises leaves the image as it was, and so does an object that nobody closed.
    """

    def __init__(self, fs: ImageFileSystem, path: str, *, append: bool, autocommit: bool) -> None:
        with tempfile.TemporaryFile(buffering=0) as scratch:
            self._scratch = os.dup(scratch.fileno())
        super().__init__(io.FileIO(self._scratch, "r+b"))
        self.fs, self.path = fs, path
        self._append, self._autocommit, self._kept = append, autocommit, -1

    def close(self) -> None:
        """Close the file and put it into the image, or keep it until its transaction ends."""
        if self.closed:
            return
        self.flush()
        self._kept = os.dup(self._scratch)
        super().close()
        if self._autocommit:
            self.commit()

    def commit(self) -> None:
        """Put what was written into the image."""
        try:
            with self.fs.editing() as editor:
                self.put(editor)
        finally:
            self.discard()

    def put(self, editor: Editor) -> None:
        """Put what was written into an image that is open for changes."""
        with FileDevice.adopt(os.dup(self._kept), f"what was written for {self.path}", writable=False) as device:
            _write(editor, self.path, DeviceRange(device, device.size, 0), append=self._append)

    def discard(self) -> None:
        """Forget what was written. Idempotent."""
        if not self.closed:
            super().close()
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        if hasattr(self, "_kept"):
            self.discard()


def _split(url: str) -> tuple[str, str]:
    """Return the image that a URL means, and the path within it. Raises FileNotFoundError where there is no image."""
    rest = url.removeprefix("blockwright://")
    for found in re.finditer(r"(?<=[^/])(?=/)|$", rest):
        image = rest[: found.start()]
        for path in (image, _PART.sub("", image)):
            if path and os.path.exists(path) and not os.path.isdir(path):
                return image, "/" + rest[found.start() :].strip("/")
    raise FileNotFoundError(errno.ENOENT, f"expected a file of the host, or a part of one, within the path {rest!r}")


def _info(files: FileSystem, path: str) -> dict[str, Any]:
    """Return what fsspec wants to know of a path, as its own file system of the host tells it."""
    return _told(files, path, files.resolve(os.fsencode(path), follow=False))


def _told(files: FileSystem, path: str, inode: int) -> dict[str, Any]:
    """Return that of an inode which ``path`` names; only what a link leads to is looked up by name."""
    link = found = files.stat_inode(inode)
    told: dict[str, Any] = {"name": path, "islink": link.kind == stat_module.S_IFLNK}
    if told["islink"]:
        told["destination"] = os.fsdecode(files.link_target(inode))
        try:
            found = files.stat(os.fsencode(path))
        except (NotFound, UsageError):  # leads nowhere, or in circles
            found = link
    return told | _metadata(found)


def _metadata(found: Stat) -> dict[str, Any]:
    """Return an inode's metadata, times in seconds."""
    return {
        "size": found.size,
        "type": _KINDS.get(found.kind, "other"),
        "mode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
        "nlink": found.nlink,
        "ino": found.inode,
        "mtime": found.mtime_ns / 10**9,
        "created": None if found.crtime_ns is None else found.crtime_ns / 10**9,
    }


def _expect_file(info: dict[str, Any], path: str) -> None:
    """Raise IsADirectoryError for a directory, FileNotFoundError for a link to nowhere, UsageError for the rest."""
    if info["type"] == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if info["type"] == "link":  # which leads nowhere
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if info["type"] != "file":
        raise UsageError(f"{path}: expected a regular file, found another kind ({info['type']})")


def _check_new(files: FileSystem, path: str, *, exclusive: bool) -> None:
    """Raise, before anything is written, what would be raised behind it."""
    try:
        found = _info(files, path)
    except NotFound:
        files.resolve(os.fsencode(path.rpartition("/")[0]))
        return
    if exclusive:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    _expect_file(found, path)


def _write(editor: Editor, path: str, content: Content | None, *, append: bool) -> None:
    """Have a file hold a content, or more than it held; None leaves what it holds. Its time is now."""
    name, now = os.fsencode(path), time.time_ns()
    try:
        there = editor.files.stat(name)
    except NotFound:
        editor.put(name, File(0o644, mtime_ns=now, content=content or EMPTY))
        return
    if content is not None:
        editor.write(name, content, offset=there.size if append else None)
    editor.set_attributes(name, Attributes(mtime_ns=now))
