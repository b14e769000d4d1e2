"""What an image names is opened where the caller allows it, and nowhere else; a refusal tells nothing of the file."""

import os
import subprocess
import sys

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import Corrupt, NotAllowed, NotFound, Unsupported
from blockwright.format.open import open_image
from blockwright.format.policy import Policy
from blockwright.format.qcow2.create import Options, create
from blockwright.resolve import open_device
from blockwright.serve.image import Image
from blockwright.units import MiB
from tests.support.tools import run

SECRET = b"root:$6$secret" * 100


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "etc" / "shadow"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def over(folder, name, form="raw", **options):
    path = folder / "image.qcow2"
    path.unlink(missing_ok=True)
    with FileDevice(path, create=True) as file:
        create(file, MiB, Options(**(options or {"backing_file": name, "backing_format": form})))
    return path


def command(*arguments):
    return [sys.executable, "-m", "blockwright", *map(str, arguments)]


def test_a_backing_file_discloses_nothing(secret, tmp_path):
    image = over(tmp_path, str(secret))
    with pytest.raises(NotAllowed, match="is not opened unasked"):
        open_device(str(image))
    with pytest.raises(NotAllowed):
        Image(str(image))()
    out = tmp_path / "out.raw"
    for arguments in (["convert", image, out], ["fs", "ls", image], ["inspect", image]):
        done = subprocess.run(command(*arguments), capture_output=True, check=False)
        assert done.returncode == 1
        assert b"secret" not in done.stdout + done.stderr
        assert done.stderr.count(b"\n") == 1
    assert not out.exists()
    done = run(command("check", image))
    assert "clean" in done.stdout


def test_a_refusal_is_the_same_whether_the_file_is_there_or_not(secret, tmp_path):
    def told(name):
        with pytest.raises(NotAllowed) as raised:
            open_device(str(over(tmp_path, name)), policy=Policy((str(tmp_path / "bases"),)))
        return str(raised.value).replace(name, "NAME")

    (tmp_path / "bases").mkdir()
    assert told(str(secret)) == told(str(secret) + ".missing")


@pytest.mark.parametrize("name", ["../etc/shadow", "link", "folder/shadow", "link/../../etc/shadow"])
def test_no_way_leads_out_of_the_folder(secret, tmp_path, name):
    bases = tmp_path / "bases"
    bases.mkdir()
    os.symlink(secret, bases / "link")
    os.symlink(secret.parent, bases / "folder")
    image = over(bases, name)
    with pytest.raises(NotAllowed, match="found one elsewhere"):
        open_device(str(image), policy=Policy((str(bases),)))


def test_what_is_allowed_is_read(secret, tmp_path):
    image = over(tmp_path, "etc/shadow")
    with open_device(str(image), policy=Policy((str(secret.parent),))) as disk:
        assert disk.read(0, len(SECRET)) == SECRET
    out = tmp_path / "out.raw"
    run(command("convert", "-q", "--allow-backing", secret.parent, image, out))
    assert out.read_bytes()[: len(SECRET)] == SECRET


@pytest.mark.parametrize("name", ["json:{}", "nbd://localhost/", "nbd:localhost:10809", "ssh://host/x", "fat:/etc"])
def test_protocols_are_never_followed(tmp_path, name):
    image = over(tmp_path, name)
    for policy in (Policy(), Policy(("/",))):
        with pytest.raises(Unsupported, match="name of a protocol"):
            open_device(str(image), policy=policy)


def test_a_data_file_is_held_to_the_policy(secret, tmp_path):
    image = over(tmp_path, "", data_file=str(secret), data_file_raw=True)
    with pytest.raises(NotAllowed, match="external data file"):
        open_device(str(image))
    with pytest.raises(NotAllowed):
        open_device(str(image), writable=True, policy=Policy((str(tmp_path / "bases"),)))


def test_files_that_are_none(tmp_path):
    policy = Policy((str(tmp_path),))
    with pytest.raises(NotFound):
        open_device(str(over(tmp_path, "missing")), policy=policy)
    with pytest.raises(NotFound):
        open_device(str(over(tmp_path, ".")), policy=policy)
    (tmp_path / "base").write_bytes(b"")
    with pytest.raises(Unsupported, match="its format 'qed' is not read"):
        open_device(str(over(tmp_path, "base", "qed")), policy=policy)
    with pytest.raises(Corrupt):
        policy.resolve(b"a\0b", None, "backing file")


def test_a_backing_file_is_read_as_what_it_is_said_to_be(tmp_path):
    base = tmp_path / "base"
    with FileDevice(base, create=True) as file:
        create(file, MiB, Options(backing_file="/etc/passwd", backing_format="raw"))
    policy = Policy((str(tmp_path),))
    with open_device(str(over(tmp_path, "base", "raw")), policy=policy) as disk:
        assert disk.read(0, 4) == b"QFI\xfb"
    with pytest.raises(NotAllowed):
        open_device(str(over(tmp_path, "base", "qcow2")), policy=policy)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells where an open file lies")
def test_a_link_that_comes_to_lie_on_the_way_leads_nowhere(secret, tmp_path):
    folder = tmp_path / "allowed"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "shadow").write_bytes(b"mine")
    policy = Policy((str(folder),))
    path = policy.resolve(b"sub/shadow", str(folder / "image"), "backing file")
    with policy.open(path) as file:
        assert (file.name, file.read(0, 4)) == (path, b"mine")
    (folder / "sub").rename(folder / "gone")
    (folder / "sub").symlink_to(secret.parent)
    with pytest.raises(NotAllowed, match="when it was allowed"):
        policy.open(path)
    (folder / "sub").unlink()
    (folder / "sub").mkdir()
    (folder / "sub" / "shadow").symlink_to(secret)
    with pytest.raises(NotAllowed, match="when it was allowed"):
        policy.open(path)
    (folder / "sub" / "shadow").unlink()
    with pytest.raises(FileNotFoundError, match=path):
        policy.open(path)


def test_nothing_stays_open(secret, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for policy in (Policy(), Policy((str(tmp_path / "etc"),))):
        for name in (str(secret) + ".missing", "../x"):
            with pytest.raises((NotAllowed, NotFound)):
                open_device(str(over(tmp_path, name)), policy=policy)
    with FileDevice(over(tmp_path, "x")) as file, pytest.raises(NotAllowed):
        open_image(file)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_whose_name_begins_alike_is_another(tmp_path):
    for name in ("allowed", "allowed-not"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base").write_bytes(SECRET)
    policy = Policy((str(tmp_path / "allowed"),))
    image = str(tmp_path / "allowed" / "image")
    assert policy.resolve(b"base", image, "backing file") == str(tmp_path / "allowed" / "base")
    for name in (b"../allowed-not/base", os.fsencode(tmp_path / "allowed-not" / "base")):
        with pytest.raises(NotAllowed, match="found one elsewhere"):
            policy.resolve(name, image, "backing file")
