"""Where files come to lie that are taken out of an image."""

from pathlib import Path

import pytest

from tests.support.command import blockwright, files_in

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def image(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/hosts").write_bytes(b"hosts")
    blockwright("build", source, "-o", tmp_path / "root.ext4", "--table", "none")
    return tmp_path / "root.ext4"


def test_a_file_goes_into_a_directory_under_its_own_name(image: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    told = blockwright("fs", "get", image, "/etc/hosts", f"{tmp_path}/new/")
    assert told.stdout.decode() == f"{tmp_path}/new/hosts\n"
    assert (tmp_path / "new/hosts").read_bytes() == b"hosts"
    done = blockwright("fs", "get", image, "/etc/hosts", tmp_path / "new", code=2)
    assert b"new/hosts: exists already" in done.stderr


def test_what_is_no_file_to_write_or_to_read_says_which_command_does_it(image: Path, tmp_path: Path) -> None:
    done = blockwright("fs", "get", image, "/etc/hosts", "-", code=2)
    assert b"'blockwright fs cat' writes to standard output" in done.stderr
    done = blockwright("fs", "get", image, "/etc", tmp_path / "etc", code=2)
    assert b"/etc: is a directory: 'blockwright extract IMAGE DIRECTORY --only /etc' copies it" in done.stderr
    blockwright("extract", image, tmp_path / "copy", "--only", "/etc", "--owner", "me")
    assert files_in(tmp_path / "copy") == ["etc"]


def test_only_what_is_not_there_makes_nothing(image: Path, tmp_path: Path) -> None:
    for command in (["extract", image, tmp_path / "copy"], ["build", image, "-o", tmp_path / "copy"]):
        done = blockwright(*command, "--only", "/ect", code=2)
        assert b"--only: expected something of the source's to match '/ect', found nothing" in done.stderr
        assert not (tmp_path / "copy").exists()
