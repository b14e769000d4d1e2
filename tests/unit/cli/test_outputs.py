"""Where a command writes, and what it says of it."""

import os
import subprocess
from pathlib import Path

import pytest

from blockwright.resolve import open_device
from tests.support.command import COMMAND, blockwright, document, files_in

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "a").write_bytes(b"body")
    return path


def test_an_earlier_output_within_the_source_is_not_taken_for_content(source: Path, tmp_path: Path) -> None:
    output = source / "disk.img"
    blockwright("build", source, "-o", output)
    before = output.read_bytes()
    (tmp_path / "link").symlink_to(source)
    for name in (source, tmp_path / "link"):
        done = blockwright("build", name, "-o", output, "--force", code=2)
        assert b"lies within" in done.stderr
    assert output.read_bytes() == before
    assert files_in(source) == ["a", "disk.img"]
    sibling = tmp_path / "source.img"  # a name that only begins like the source's
    blockwright("build", source, "-o", sibling)
    blockwright("build", source, "-o", sibling, "--force")


@pytest.mark.parametrize("name", ["", "new/", "{}/new/"])
def test_an_output_without_a_name_is_refused(source: Path, tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [*COMMAND, "build", str(source), "-o", name.format(tmp_path)], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"expected the name of a file" in done.stderr
    assert files_in(tmp_path) == ["source"]


def test_a_folder_that_is_not_there_is_named_as_it_was_given(source: Path, tmp_path: Path) -> None:
    done = blockwright("build", source, "-o", tmp_path / "none" / "disk.img", code=5)
    assert done.stderr.decode() == f"blockwright: {tmp_path}/none/disk.img: no such file or directory\n"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_path_to_standard_output_holds_the_disk_and_nothing_else(
    source: Path, tmp_path: Path, more: list[str]
) -> None:
    blockwright("build", source, "-o", tmp_path / "a.img")
    expected = (tmp_path / "a.img").read_bytes()
    arguments = {
        "build": ["build", str(source), "-o", "/dev/stdout"],
        "convert": ["convert", str(tmp_path / "a.img"), "/dev/stdout"],
    }
    for command in arguments.values():
        with open(tmp_path / "b.img", "wb") as out:
            subprocess.run([*COMMAND, *command, *more], stdout=out, check=True)
        assert (tmp_path / "b.img").read_bytes() == expected


def test_names_that_are_no_text_are_taken_and_printed_as_they_are(source: Path, tmp_path: Path) -> None:
    output = os.fsencode(tmp_path / "disk") + b"\xff.img"
    done = blockwright("build", source, "-o", output, "--seed", b"\xff", env={"PYTHONIOENCODING": "utf-8:strict"})
    assert done.stdout == output + b"\n"
    assert document("inspect", output)["size"] == os.stat(output).st_size


def test_damage_is_told_with_exit_code_3(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    blockwright("build", source, "-o", image)
    os.truncate(image, image.stat().st_size - (1 << 20))
    told = document("check", image, code=3)
    assert not told["clean"]
    assert [place["kind"] for place in told["places"]] == ["gpt"]


@pytest.mark.parametrize("option", ["--label", "--cmdline"])
def test_text_that_is_not_utf_8_is_refused_where_text_is_written(source: Path, tmp_path: Path, option: str) -> None:
    more = ["--boot", "systemd-boot"] if option == "--cmdline" else []
    done = blockwright("build", source, "-o", tmp_path / "disk.img", option, b"\xff", *more, code=2)
    assert b"expected text in UTF-8, found '\\udcff'" in done.stderr


def test_nothing_on_standard_input_is_no_disk_and_replaces_none(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"kept")
    done = blockwright("convert", "-", disk, "--force", input=b"", code=1)
    assert done.stderr == b"blockwright: standard input: expected a disk, found nothing\n"
    assert disk.read_bytes() == b"kept"


@pytest.mark.parametrize("command", ["build", "convert", "create"])
def test_a_suffix_of_what_is_not_written_is_refused(source: Path, tmp_path: Path, command: str) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    made = tmp_path / "made.img.xz"
    arguments = {
        "build": ["build", source, "-o", made],
        "convert": ["convert", disk, made],
        "create": ["disk", "create", made, "1M"],
    }[command]
    done = blockwright(*arguments, code=2)
    assert b"made.img.xz: no .xz file is written: expected another suffix, or --format" in done.stderr
    assert not made.exists()
    blockwright(*arguments, "--format", "raw")
    assert made.stat().st_size


def test_a_compressed_file_is_not_created_empty(tmp_path: Path) -> None:
    made = tmp_path / "made.img.gz"
    done = blockwright("disk", "create", made, "1M", code=2)
    assert b"expected a format that is written in place, found a compressed file" in done.stderr
    assert not made.exists()


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.img"])
def test_an_image_that_somebody_writes_to_is_not_copied(source: Path, tmp_path: Path, name: str) -> None:
    disk, copy = tmp_path / name, tmp_path / "copy.img"
    blockwright("build", source, "-o", disk)
    commands = ["convert", disk, copy, "--force"], ["compare", disk, disk]
    with open_device(str(disk), writable=True):
        for command in commands:
            if name == "disk.img":  # the bytes as they are: there are no maps that could be half changed
                blockwright(*command)
                continue
            done = blockwright(*command, code=1)
            assert b"disk.qcow2: is in use: process " in done.stderr
            assert b"writes to it, and half of a change would be read" in done.stderr
            blockwright(*command, "--force-unlocked")
    for command in commands:
        blockwright(*command)
    blockwright("convert", disk, disk, "--force")
