"""Make a zipapp of packages that were installed to a directory: scripts/zipapp calls it."""

import hashlib
import os
import shutil
import sys
import sysconfig
import zipapp

IN_PYTHON_TOO = ("google_crc32c",)
"""Packages with compiled parts that can be imported without them; any other is better not there than broken."""

MAIN = '''"""The command, from within an archive."""

import os
import sys
import sysconfig
import warnings

DIGEST = "@DIGEST@"
MADE_FOR = "@TAG@"


def tag():
    return f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


def ours(path):
    """Whether only we and root can put another directory in the place of this one, or of one on the way to it."""
    while True:
        status = os.stat(path)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o1002 == 0o002:  # but sticky ones, as /tmp is
            return False
        if path == os.path.dirname(path):
            return True
        path = os.path.dirname(path)


def unpack(archive):
    """Return the directory with the compiled packages, unpacked by whoever is first; None where that cannot be."""
    import shutil
    import tempfile
    import zipfile

    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = os.path.join(cache, "blockwright")
    target = os.path.join(home, f"zipapp-{DIGEST}")
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
        if not ours(os.path.realpath(home)):  # what is imported is run
            return None
        if os.path.isdir(target):
            return target if ours(os.path.realpath(target)) else None
        stage = tempfile.mkdtemp(dir=home)
        try:
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    if name.startswith("compiled/"):
                        file.extract(name, stage)
            os.rename(os.path.join(stage, "compiled"), target)
        except OSError:
            if not os.path.isdir(target):  # else somebody else was first
                raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError:
        return None
    return target


def main():
    archive = os.path.dirname(os.path.abspath(__file__))
    if sys.version_info < (3, 11):
        sys.exit("blockwright: needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])
    found = unpack(archive) if tag() == MADE_FOR else None
    if found is not None:
        sys.path.insert(0, found)
    else:
        warnings.filterwarnings("ignore", module="google_crc32c")
    from blockwright.cli import main as run

    run()


main()
'''


def compiled(path: str) -> bool:
    """Whether a package has anything that Python cannot import from an archive."""
    names = [name for _, _, files in os.walk(path) for name in files]
    return any(name.endswith((".so", ".dylib", ".pyd")) for name in names)


def main(source: str, app: str, output: str) -> None:
    """Sort packages into those that are imported from the archive and those that are unpacked."""
    native = os.path.join(app, "compiled")
    os.makedirs(native)
    digest = hashlib.sha256()
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if name in ("bin", "share", "__pycache__") or name.startswith("__editable__"):
            continue
        has_compiled = name.endswith(".libs") or (os.path.isdir(path) and compiled(path))
        if not has_compiled or name in IN_PYTHON_TOO:
            shutil.copytree(path, os.path.join(app, name)) if os.path.isdir(path) else shutil.copy(path, app)
        if has_compiled:
            shutil.copytree(path, os.path.join(native, name))
            for folder, _, files in sorted(os.walk(path)):
                for each in sorted(files):
                    with open(os.path.join(folder, each), "rb") as file:
                        digest.update(hashlib.sha256(file.read()).digest())
    for folder, _, files in os.walk(app):  # what is compiled is not imported from the archive itself
        for name in files:
            if name.endswith((".so", ".dylib", ".pyd")) and not folder.startswith(native):
                os.unlink(os.path.join(folder, name))
    tag = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    with open(os.path.join(app, "__main__.py"), "w", encoding="utf-8") as file:
        file.write(MAIN.replace("@DIGEST@", digest.hexdigest()[:16]).replace("@TAG@", tag))
    zipapp.create_archive(app, output, "/usr/bin/env python3", compressed=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
