"""`blockwright verity`: what it prints, where it writes, and what it leaves after a failure."""

import os
from pathlib import Path

import pytest

from tests.support.command import blockwright, document, files_in
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
CONTENT = bytes(range(251)) * 8192 * 2


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(CONTENT)
    return path


def formatted(*arguments) -> str:
    return blockwright("verity", "format", *arguments).stdout.decode().strip()


def test_a_hash_file_of_its_own(data: Path, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    told = document("verity", "format", data, hashes, "--seed", "s")
    run([tool("veritysetup"), "verify", data, hashes, told["root_hash"]])
    assert told["data_blocks"] == len(CONTENT) // 4096
    assert (told["hash_offset"], told["tree_start"], told["algorithm"]) == (0, 4096, "sha256")
    assert blockwright("verity", "verify", data, hashes, told["root_hash"]).stdout.endswith(b"verity: clean\n")
    before = hashes.read_bytes()
    blockwright("verity", "format", data, hashes, code=2)
    assert hashes.read_bytes() == before
    assert formatted(data, hashes, "--force", "--seed", "s") == told["root_hash"]
    assert hashes.read_bytes() == before
    assert formatted(data, hashes, "--force") != told["root_hash"], "a salt that nobody gave is random"


@pytest.mark.parametrize("more", [["--force"], ["--hash-offset", "4096"]])
def test_hashes_are_not_written_over_their_data(data: Path, tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "link").symlink_to(data)
    os.link(data, tmp_path / "hard")
    for name in ("link", "hard", f"../{tmp_path.name}/data"):
        said = blockwright("verity", "format", data, tmp_path / name, *more, code=2).stderr
        assert b"itself" in said
    blockwright("verity", "format", f"{data}:1048576,1048576", f"{data}:1114112,1048576", *more, code=2)
    assert data.read_bytes() == CONTENT


def test_every_option_is_veritysetups(data: Path, tmp_path: Path) -> None:
    hashes, uuid = tmp_path / "hashes", "12345678-9abc-def0-1234-56789abcdef0"
    sizes = ["--data-block-size", "8k", "--hash-block-size", "1024", "--data-blocks", "100"]
    root = formatted(data, hashes, "--algorithm", "sha512", "--salt", "00ff", "--uuid", uuid, *sizes)
    shown = run([tool("veritysetup"), "dump", hashes]).stdout
    for line in (uuid, "sha512", "00ff", "8192", "1024", "100"):
        assert line in shown
    run([tool("veritysetup"), "verify", data, hashes, root])


def test_hashes_behind_the_data_are_found_again(data: Path) -> None:
    root = formatted(data)
    assert data.read_bytes()[: len(CONTENT)] == CONTENT
    run([tool("veritysetup"), "verify", "--hash-offset", str(len(CONTENT)), data, data, root])
    assert document("verity", "verify", data, root)["clean"]
    size = data.stat().st_size
    blockwright("verity", "format", data, code=2)
    again = formatted(data, "--force")
    assert data.stat().st_size == size
    assert document("verity", "verify", data, again)["root_hash"] == again


@pytest.mark.parametrize("sizes", [("512", "512"), ("4096", "1024"), ("1024", "64k")])
def test_they_are_found_whatever_the_blocks(data: Path, sizes: tuple[str, str]) -> None:
    root = formatted(data, "--data-block-size", sizes[0], "--hash-block-size", sizes[1], "--algorithm", "sha384")
    assert document("verity", "verify", data, root)["clean"]


def test_an_offset_in_a_file_that_is_there(data: Path, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    hashes.write_bytes(b"kept" * 1024)
    root = formatted(data, hashes, "--hash-offset", "4096")
    assert hashes.read_bytes()[:4096] == b"kept" * 1024
    run([tool("veritysetup"), "verify", "--hash-offset", "4096", data, hashes, root])
    assert document("verity", "verify", data, hashes, root, "--hash-offset", "4096")["clean"]
    blockwright("verity", "verify", data, hashes, root, code=1)


def test_damage_exits_with_3_and_names_the_file_and_byte(data: Path, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)
    for path, rule in ((data, "verity.data"), (hashes, "verity.tree")):
        content = bytearray(path.read_bytes())
        content[4096 + 5] ^= 1
        path.write_bytes(content)
        said = blockwright("verity", "verify", data, hashes, root, code=3).stdout.decode()
        assert said.startswith(f"{path}: {rule}: "), said
        assert said.endswith("(byte 4096)\n"), said
        content[4096 + 5] ^= 1
        path.write_bytes(content)
    blockwright("verity", "verify", data, hashes, "00" * 32, code=3)


def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    hashes = tmp_path / "hashes"
    for options in (
        ["--data-block-size", "3000"],
        ["--data-block-size", "64k"],  # no whole blocks
        ["--salt", "xyz"],
        ["--salt", "00" * 257],
        ["--hash-offset", "100"],
        ["--uuid", "none"],
    ):
        blockwright("verity", "format", data, hashes, *options, code=2)
        blockwright("verity", "format", data, *options, code=2)
    blockwright("verity", "format", data, hashes, "--data-blocks", "100000", code=1)
    blockwright("verity", "format", tmp_path / "none", hashes, code=5)
    blockwright("verity", "verify", data, "00" * 32, code=1)
    blockwright("verity", "verify", data, code=2)
    assert files_in(tmp_path) == ["data"]
    assert data.read_bytes() == CONTENT


def test_a_data_file_keeps_its_size_where_hashing_fails(data: Path) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) + 8192, len(CONTENT) + 8192))

    import signal
    import subprocess

    from tests.support.command import COMMAND

    done = subprocess.run(
        [*COMMAND, "verity", "format", data],
        capture_output=True,
        preexec_fn=lambda: (limited(), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)),
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert data.read_bytes() == CONTENT


@pytest.mark.skipif(os.path.exists("/dev/mapper/control"), reason="has device-mapper: see the guest's tests")
def test_without_device_mapper_it_says_so_in_one_line(data: Path, tmp_path: Path) -> None:
    root = formatted(data, tmp_path / "hashes")
    env = {"BLOCKWRIGHT_HOME": str(tmp_path / "home")}
    blockwright("verity", "open", data, tmp_path / "hashes", root, "name", code=4, env=env)
    blockwright("verity", "close", "name", code=4, env=env)
