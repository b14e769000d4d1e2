"""Our client with nbdkit, qemu-nbd and nbd-server."""

import errno
import json
import random
import socket
import threading
from itertools import count

import pytest

from blockwright.device.extent import merge
from blockwright.errors import NotFound, NotSupported, PeerError, ReadOnly, RemoteProtocolError
from blockwright.nbd.client import pool
from blockwright.nbd.client.connect import connect, describe, list_exports
from blockwright.nbd.client.options import ClientOptions
from blockwright.testing import check_device
from blockwright.units import KiB, MiB
from tests.support.command import blockwright, document
from tests.support.nbdpeers import nbd_server, nbdkit, qemu_nbd
from tests.support.tools import run, tool

SIZE = 1 << 20


def conform(uri):
    def make():
        device = connect(uri, writable=True)
        device.zero(0, device.size)
        return device

    check_device(make, bytes(SIZE), operations=40)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--no-sr"],
        ["--filter=noextents"],
        ["--filter=nozero"],
        ["--filter=fua", "fuamode=emulate"],
        ["--mask-handshake=0"],
        ["--mask-handshake=1"],
        ["--mask-handshake=2"],
        [
            "--filter=blocksize-policy",
            "blocksize-minimum=512",
            "blocksize-maximum=64k",
            "blocksize-error-policy=error",
        ],
    ],
    ids=lambda arguments: arguments[0] if arguments else "plain",
)
def test_a_device_over_nbdkit_keeps_the_contract(tmp_path, arguments):
    options = [each for each in arguments if each.startswith("--")]
    parameters = [each for each in arguments if not each.startswith("--")]
    with nbdkit(tmp_path, *options, "memory", str(SIZE), *parameters) as server:
        conform(server.uri())


def test_a_device_over_qemu_nbd_keeps_the_contract(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with qemu_nbd(tmp_path, "-f", "raw", "--discard=unmap", tmp_path / "disk") as server:
        conform(server.uri())
        assert describe(server.uri()).session.export.blocks is not None


def test_a_device_over_nbd_server_keeps_the_contract(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with nbd_server(tmp_path, {"disk": tmp_path / "disk"}) as server:
        conform(server.uri("disk"))


def test_extents_are_those_that_nbdinfo_tells(tmp_path):
    with nbdkit(tmp_path, "sparse-random", "64M", "seed=3", "percent=50", "runlength=300000") as server:
        told = json.loads(run([tool("nbdinfo"), "--map", "--json", server.uri()]).stdout)
        with connect(server.uri()) as device:
            ours = [tuple(each) for each in device.extents()]
        assert ours == [(each["offset"], each["length"], each["type"]) for each in told]
        assert len(ours) > 10


def test_what_qemu_has_as_bitmap_is_a_context(tmp_path):
    disk = tmp_path / "disk.qcow2"
    run([tool("qemu-img"), "create", "-f", "qcow2", disk, "64M"])
    run([tool("qemu-io"), "-c", "write -P 1 0 64M", disk])
    with qemu_nbd(tmp_path, "-r", "-f", "qcow2", disk) as server:
        blockwright("nbd", "copy", server.uri(), tmp_path / "backup.img")
    run([tool("qemu-img"), "bitmap", "--add", "-g", "64k", disk, "b0"])
    changes = ["write -P 2 1M 200k", "write -z 10M 1M", "discard 20M 1M", "write -P 3 67100000 8000"]
    run([tool("qemu-io"), *[part for each in changes for part in ("-c", each)], disk])
    context = "qemu:dirty-bitmap:b0"
    with qemu_nbd(tmp_path, "-r", "-f", "qcow2", "-B", "b0", "-A", disk) as server:
        assert set(describe(server.uri()).contexts) == {"base:allocation", context, "qemu:allocation-depth"}
        with connect(server.uri(), options=ClientOptions(contexts=(context,))) as device:
            dirty = [each[:2] for each in merge(device.context_extents(context)) if each.flags]
        assert dirty[:3] == [(1 * MiB, 256 * KiB), (10 * MiB, MiB), (20 * MiB, MiB)]
        copied = document("nbd", "copy", server.uri(), tmp_path / "backup.img", "--context", context, "--verify")
        assert copied["copied"] + copied["zeroed"] == sum(length for _, length in dirty)
        blockwright("nbd", "copy", server.uri(), tmp_path / "whole.img")
        blockwright(
            "nbd", "copy", server.uri(), tmp_path / "backup.img", "--context", "qemu:dirty-bitmap:none", code=2
        )
        blockwright("nbd", "copy", server.uri(), tmp_path / "none.img", "--context", context, code=5)
    assert (tmp_path / "backup.img").read_bytes() == (tmp_path / "whole.img").read_bytes()


def test_sparse_random_verifies_both_directions(tmp_path):
    with nbdkit(tmp_path, "sparse-random", "256M", "seed=7", "percent=50") as server:
        blockwright("nbd", "copy", server.uri(), tmp_path / "disk", "--verify")
        blockwright("nbd", "copy", tmp_path / "disk", server.uri(), code=2)
        blockwright("convert", tmp_path / "disk", server.uri(), "--force", "--connections", "2", "--requests", "5")
        with (tmp_path / "disk").open("r+b") as file:
            file.seek(100_000_000)
            file.write(b"wrong")
        failed = blockwright("nbd", "copy", tmp_path / "disk", server.uri(), "--force", code=1)
        assert b"the server answers EIO" in failed.stderr


def test_an_empty_export_is_written_unasked_and_a_small_one_never(tmp_path):
    content = random.Random(1).randbytes(300_000) + bytes(500_000)
    (tmp_path / "disk").write_bytes(content)
    with nbdkit(tmp_path, "memory", "900000") as server:
        result = document("nbd", "copy", tmp_path / "disk", server.uri())
        assert result["zeroed"] == 0, "an export that tells that it is all zeros is not zeroed"
        assert run([tool("nbdcopy"), server.uri(), tmp_path / "back"]).returncode == 0
        assert (tmp_path / "back").read_bytes() == content + bytes(100_000)
    with nbdkit(tmp_path, "memory", "700000") as server:
        failed = blockwright("nbd", "copy", tmp_path / "disk", server.uri(), code=1)
        assert b"expected at least 800000 bytes, found 700000" in failed.stderr


def test_servers_that_fail_are_told_by_request(tmp_path):
    arguments = ["--filter=noextents", "--filter=error", "memory", "1M", "error-pread=EIO", "error-pread-rate=100%"]
    with nbdkit(tmp_path, *arguments, "error-pwrite=ENOSPC", "error-pwrite-rate=100%") as server:
        with connect(server.uri(), writable=True) as device:
            with pytest.raises(PeerError, match="READ of 512 bytes at 0: the server answers EIO") as caught:
                device.read(0, 512)
            assert caught.value.errno == errno.EIO
            with pytest.raises(PeerError, match="ENOSPC"):
                device.write(0, b"x")
            device.zero(0, 512)
        failed = blockwright("nbd", "copy", server.uri(), tmp_path / "out", code=1)
        assert b"EIO" in failed.stderr
        assert not (tmp_path / "out").exists()


def test_a_slow_server_meets_the_deadline(tmp_path):
    with nbdkit(tmp_path, "--filter=noextents", "--filter=delay", "memory", "1M", "delay-read=600") as server:
        with connect(server.uri(), options=ClientOptions(timeout_s=0.2)) as device, pytest.raises(TimeoutError):
            device.read(0, 512)
        failed = blockwright("nbd", "copy", server.uri(), tmp_path / "out", "--timeout", "0.2", code=1)
        assert b"no answer within 0.2 s" in failed.stderr


def test_oldstyle_and_other_refusals_are_told(tmp_path):
    with nbdkit(tmp_path, "-o", "memory", "1M") as server:
        with pytest.raises(RemoteProtocolError, match="oldstyle"):
            connect(server.uri())
        assert b"oldstyle" in blockwright("nbd", "info", server.uri(), code=1).stderr
    with nbdkit(tmp_path, "-r", "memory", "1M") as server:
        with pytest.raises(ReadOnly):
            connect(server.uri(), writable=True)
        blockwright("nbd", "copy", "mem:1M", server.uri(), code=2)
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with qemu_nbd(tmp_path, "-f", "raw", "-x", "known", tmp_path / "disk") as server:
        with pytest.raises(NotFound, match="'other'"):
            connect(server.uri("other"))
        assert connect(server.uri("known")).close() is None
        blockwright("nbd", "info", server.uri("other"), code=5)


def test_lists(tmp_path):
    folder = tmp_path / "exports"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_bytes(bytes(4096))
    with nbdkit(tmp_path, "file", f"dir={folder}") as server:
        assert {each.name: each.info and each.info.size for each in list_exports(server.uri())} == {
            "one": 4096,
            "two": 4096,
        }
    with nbd_server(tmp_path, {"a": folder / "one", "b": folder / "two"}) as server:
        assert {each.name for each in list_exports(server.uri())} == {"a", "b"}
        found = document("nbd", "list", server.uri())
        assert {each["export"] for each in found["exports"]} == {"a", "b"}
    with qemu_nbd(tmp_path, "-f", "raw", "-x", "disk", "-D", "what it is", folder / "one") as server:
        [only] = list_exports(server.uri())
        assert (only.name, only.description) == ("disk", "what it is")
        assert "what it is" in blockwright("nbd", "list", server.uri()).stdout.decode()


def test_odd_answers_of_a_plugin(tmp_path):
    """Extents that the script tells in its own way, a read that fails at one place only."""
    script = {
        "get_size": "echo 1M",
        "pread": 'if [ $4 -ge 524288 ]; then echo "ESHUTDOWN going away" >&2; exit 1; fi; head -c $3 /dev/zero',
        "can_extents": "exit 0",
        "extents": 'echo "0 4096 hole,zero"; echo "4096 4096"; echo "8192 1M zero"',
    }
    arguments = [f"{name}={text}" for name, text in script.items()]
    with nbdkit(tmp_path, "eval", *arguments) as server, connect(server.uri()) as device:
        assert [each.flags for each in device.extents(0, 65536)] == [3, 0, 2]
        assert device.read(0, 4096) == bytes(4096)
        with pytest.raises(PeerError) as caught:
            device.read(524288, 1)
        assert caught.value.errno == errno.ESHUTDOWN


def test_inspecting_and_reading_files_over_nbd(tmp_path):
    source = tmp_path / "tree"
    source.mkdir()
    (source / "hello").write_text("over the wire")
    blockwright("build", source, "-o", tmp_path / "disk.img", "--size", "32M")
    with nbdkit(tmp_path, "file", tmp_path / "disk.img") as server:
        report = document("inspect", server.uri())
        assert report["regions"][0]["file_system"]["kind"] == "ext4"
        assert blockwright("fs", "cat", f"{server.uri()}#1", "/hello").stdout == b"over the wire"
        assert blockwright("fs", "cat", server.uri(), "--partition", "1", "/hello").stdout == b"over the wire"
        asked = blockwright("fs", "ls", server.uri(), "/", code=1).stderr.decode()
        assert f"its partitions are {server.uri()}#1" in asked
        blockwright("check", server.uri())
        start = report["regions"][0]["start"]
        size = report["regions"][0]["size"]
        part = f"{server.uri()}#start={start},size={size}"
        assert blockwright("fs", "cat", part, "/hello").stdout == b"over the wire"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(tmp_path, host):
    try:
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:
        pytest.skip(f"no {host} here")
    port = listener.getsockname()[1]
    (tmp_path / "disk").write_bytes(b"t" * 4096)
    with listener, qemu_nbd(tmp_path, "-f", "raw", tmp_path / "disk") as server:
        relay = threading.Thread(target=_relay, args=(listener, str(server.path)), daemon=True)
        relay.start()
        shown = f"[{host}]" if ":" in host else host
        with connect(f"nbd://{shown}:{port}/") as device:
            assert device.read(0, 4096) == b"t" * 4096
        relay.join(60)


def test_a_server_survives_clients_that_leave_behind_hints(tmp_path):
    """nbdkit 1.32 often aborts where it has a reply to send, and the client has gone."""
    with nbdkit(tmp_path, "--no-sr", "memory", "1M") as server:
        for _ in range(200):
            with connect(server.uri()) as device:
                for _ in range(16):
                    device.prefetch(0, 4096)
        assert describe(server.uri()).session.export.size == SIZE


def test_a_server_killed_under_load_loses_nothing_that_was_flushed(tmp_path, monkeypatch):
    """Threads write and flush; nbdkit is killed again and again. All arrives, in the file and for the next reader."""
    monkeypatch.setattr(pool, "FIRST_PAUSE_S", 0.01)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4 * MiB))
    stripe, turns, workers = 64 * KiB, 30, 4
    errors = []
    with nbdkit(tmp_path, "file", disk) as server, connect(server.uri(), writable=True) as device:
        enough = threading.Event()

        def work(number):
            own = random.Random(number)
            try:
                for turn in count():
                    if turn >= turns and enough.is_set():
                        return
                    offset = (number * 16 + turn % 16) * stripe
                    content = own.randbytes(stripe)
                    device.write(offset, content)
                    device.flush()
                    with disk.open("rb") as file:
                        file.seek(offset)
                        assert file.read(stripe) == content
                    assert device.read(offset, stripe) == content
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        try:
            while all(thread.is_alive() for thread in threads) and device.reconnects < 5:
                seen = device.reconnects
                server.kill()
                server.start()
                while device.reconnects == seen and all(thread.is_alive() for thread in threads):
                    enough.wait(0.01)
        finally:
            enough.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        if errors:
            raise errors[0]
        assert device.reconnects >= 5


def test_fast_zeroes_are_refused_where_they_are_slow(tmp_path):
    server = nbdkit(tmp_path, "--filter=nozero", "memory", "1M", "fastzeromode=slow")
    with server as one, connect(one.uri(), writable=True) as device:
        device.write(0, b"kept")
        with pytest.raises(NotSupported):
            device.zero(0, 4, fast_only=True)
        assert device.read(0, 4) == b"kept"
        device.zero(0, 4)
        assert device.read(0, 4) == bytes(4)


def test_a_copy_from_server_to_server(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    source = nbdkit(tmp_path, "sparse-random", "128M", "seed=5", "percent=30")
    with source as one, nbdkit(folder, "memory", "128M") as other:
        blockwright("nbd", "copy", one.uri(), other.uri(), "--verify")
        run([tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", one.uri(), other.uri()])


def _relay(listener, path):
    """Pass one connection on to a Unix socket."""
    client, _ = listener.accept()
    with client, socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join(60)


def _pump(source, target):
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
