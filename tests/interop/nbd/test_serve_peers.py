"""libnbd, QEMU, fio, nbdkit and a real file system as clients of the server."""

import json
import os
import random
import signal
import socket
import subprocess
import threading

import pytest

from tests.support import certificates
from tests.support.rawnbd import RawClient
from tests.support.serving import serving
from tests.support.tools import missing, run, tool

MIB = 1 << 20
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    with open(path, "wb") as file:
        file.truncate(64 * MIB)
        file.write(random.Random(7).randbytes(4 * MIB))
    return path


@pytest.fixture(params=["file", "raw file", "memory", "overlay"])
def server(request, image, tmp_path):
    arguments = {
        "file": [image],
        "raw file": [image, "--from", "raw", "--workers", "2"],
        "memory": ["mem:64M"],
        "overlay": [image, "--overlay"],
    }[request.param]
    with serving(*arguments, "--socket", tmp_path / "s") as made:
        yield made


def report(printed):
    """fio's JSON, which stands behind a greeting."""
    return json.loads(printed[printed.index("{") :])


def nbdsh(uri, *lines):
    """Run statements of libnbd's Python binding, connected in `h` with every check of its own off."""
    if not os.path.exists(SYSTEM_PYTHON):
        missing(f"{SYSTEM_PYTHON} is missing, for which Debian's python3-libnbd is made")
    head = ["import nbd, errno", "h = nbd.NBD()", "h.set_strict_mode(0)", 'h.add_meta_context("base:allocation")']
    program = "\n".join([*head, f"h.connect_uri({uri!r})", *lines])
    probe = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    if probe.returncode:
        missing("libnbd's Python binding is missing: install the package python3-libnbd")
    return run([SYSTEM_PYTHON, "-c", program]).stdout


# -- libnbd ------------------------------------------------------------------------------------------------------


def test_nbdcopy_both_ways_with_nbdkit_as_verifier(server):
    """nbdkit's sparse-random plugin checks every byte that is written back to it."""
    nbdcopy = tool("nbdcopy")
    command = f"{nbdcopy} $uri '{server.uri}' && {nbdcopy} '{server.uri}' $uri"
    run([tool("nbdkit"), "-U", "-", "sparse-random", "64M", "percent=20", "--run", command])


def test_nbdcopy_of_several_connections_with_flush(server, tmp_path):
    nbdcopy = tool("nbdcopy")
    data = tmp_path / "data"
    data.write_bytes(random.Random(1).randbytes(16 * MIB))
    run([nbdcopy, "-C", "4", "-R", "64", "--flush", data, server.uri])
    run([nbdcopy, "-C", "4", "--no-extents", server.uri, tmp_path / "back"])
    assert (tmp_path / "back").read_bytes()[: 16 * MIB] == data.read_bytes()


def test_nbdinfo_maps_what_is_allocated(image, tmp_path):
    with serving(image, "--socket", tmp_path / "s") as server:
        found = json.loads(run([tool("nbdinfo"), "--map", "--json", server.uri]).stdout)
    assert [(each["offset"], each["length"], each["type"]) for each in found] == [
        (0, 4 * MIB, 0),
        (4 * MIB, 60 * MIB, 3),
    ]


def test_every_illegal_request_of_nbdsh_gets_its_error(image, tmp_path):
    """With strict mode off libnbd sends what it is told to."""
    attempts = [
        ("h.pread(512, 64 << 20)", "EINVAL"),
        ("h.pread(512, (1 << 63) - 512)", "EINVAL"),
        ("h.pwrite(bytes(512), (64 << 20) - 1)", "ENOSPC"),
        ("h.zero(512, 64 << 20)", "ENOSPC"),
        ("h.trim(512, 64 << 20)", "EINVAL"),
        ("h.cache(512, 64 << 20)", "EINVAL"),
        ("h.block_status(512, 64 << 20, lambda *_: None)", "EINVAL"),
        ("h.pread(0, 0)", "EINVAL"),
        ("h.zero(0, 0)", "EINVAL"),
        ("h.pread(33 << 20, 0)", "EINVAL"),
        ("h.pwrite(bytes(512), 0, nbd.CMD_FLAG_NO_HOLE)", "EINVAL"),
        ("h.flush(nbd.CMD_FLAG_DF)", "EINVAL"),
        ("h.trim(512, 0, nbd.CMD_FLAG_FAST_ZERO)", "EINVAL"),
        ("h.zero(512, 0, nbd.CMD_FLAG_REQ_ONE)", "EINVAL"),
        ("h.pread(512, 0, 1 << 15)", "EINVAL"),
        ("h.zero(512, 0, 1 << 14)", "EINVAL"),
        ("h.block_status(512, 0, lambda *_: None, 1 << 13)", "EINVAL"),
    ]
    lines = []
    for attempt, _ in attempts:
        lines += ["try:", f"    {attempt}", "    print('allowed')", "except nbd.Error as e:"]
        lines += ["    print(errno.errorcode[e.errnum])"]
    lines += ["print(len(h.pread(4096, 0)))", "h.shutdown()"]
    with serving(image, "--socket", tmp_path / "s") as server:
        found = nbdsh(server.uri, *lines).split()
    assert found == [*(error for _, error in attempts), "4096"]


def test_read_only_is_eperm_to_nbdsh(image, tmp_path):
    lines = []
    for attempt in ("h.pwrite(bytes(512), 0)", "h.zero(512, 0)", "h.trim(512, 0)"):
        lines += ["try:", f"    {attempt}", "except nbd.Error as e:", "    print(errno.errorcode[e.errnum])"]
    with serving(image, "-r", "--socket", tmp_path / "s") as server:
        assert nbdsh(server.uri, *lines).split() == ["EPERM"] * 3


def test_nbdfuse_carries_a_real_file_system(image, tmp_path):
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        missing(f"/dev/fuse cannot be opened: {error.strerror}")
    folder = tmp_path / "mount"
    folder.mkdir()
    with serving("mem:64M", "--socket", tmp_path / "s") as server:
        disk = folder / "disk"
        disk.write_bytes(b"")
        command = [tool("nbdfuse"), "-P", str(tmp_path / "pid"), str(disk), server.uri]
        with subprocess.Popen(command) as process:
            try:
                for _ in range(1200):
                    if (tmp_path / "pid").exists() or process.poll() is not None:
                        break
                    threading.Event().wait(0.05)
                if process.poll() is not None:
                    if os.geteuid():
                        pytest.skip("nbdfuse cannot mount here: fusermount3 may not become root for this user")
                    missing("nbdfuse cannot mount here: FUSE needs /dev/fuse and fusermount3")
                run([tool("mke2fs"), "-q", "-t", "ext4", "-F", disk])
                (tmp_path / "content").write_bytes(random.Random(2).randbytes(3 * MIB))
                run([tool("debugfs"), "-w", "-R", f"write {tmp_path / 'content'} content", disk])
                run([tool("e2fsck"), "-fn", disk])
            finally:
                run([tool("fusermount3"), "-u", disk], ok=(0, 1))
                process.terminate()
                process.wait(60)
        run([tool("nbdcopy"), server.uri, tmp_path / "copy.img"])
    run([tool("e2fsck"), "-fn", tmp_path / "copy.img"])
    run([tool("debugfs"), "-R", f"dump /content {tmp_path / 'back'}", tmp_path / "copy.img"])
    assert (tmp_path / "back").read_bytes() == (tmp_path / "content").read_bytes()


# -- QEMU --------------------------------------------------------------------------------------------------------


def test_qemu_io_reads_what_it_writes(server):
    commands = ["write -P 0x5a 0 64k", "write -P 0xa5 1M 2M", "write -z -u 1M 64k", "write -z 2M 64k", "flush"]
    commands += ["read -P 0x5a 0 64k", "read -P 0 1M 64k", "read -P 0 2M 64k", "read -P 0xa5 1088k 64k"]
    commands += ["discard 3M 1M", "write -f -P 1 5M 1M", "read -P 1 5M 1M"]
    arguments = [argument for command in commands for argument in ("-c", command)]
    found = run([tool("qemu-io"), "-f", "raw", *arguments, server.uri])
    assert "failed" not in found.stdout.lower()
    assert "mismatch" not in found.stdout.lower()


def test_qemu_img_converts_and_compares(image, tmp_path):
    qemu_img = tool("qemu-img")
    with serving(image, "--socket", tmp_path / "s") as server:
        run([qemu_img, "convert", "-f", "raw", "-O", "qcow2", server.uri, tmp_path / "copy.qcow2"])
        run([qemu_img, "compare", "-f", "qcow2", "-F", "raw", tmp_path / "copy.qcow2", server.uri])
        mapped = json.loads(run([qemu_img, "map", "--output=json", "-f", "raw", server.uri]).stdout)
        assert [(each["length"], each["data"], each["zero"]) for each in mapped] == [
            (4 * MIB, True, False),
            (60 * MIB, False, True),
        ]
    with serving("mem:64M", "--socket", tmp_path / "s") as server:
        run([qemu_img, "convert", "-n", "-f", "qcow2", "-O", "raw", tmp_path / "copy.qcow2", server.uri])
        run([qemu_img, "compare", "-f", "raw", "-F", "raw", image, server.uri])


# -- fio ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["randwrite", "write"])
def test_fio_verifies_what_it_wrote(server, how, tmp_path):
    job = ["--name=x", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={how}", "--verify=crc32c", "--do_verify=1"]
    sizes = ["--size=16M", "--bsrange=512-256k" if how == "randwrite" else "--bs=1M", "--iodepth=32"]
    fio = [tool("fio"), *job, *sizes, "--verify_fatal=1", "--output-format=json"]
    found = report(run(fio, cwd=tmp_path).stdout)  # where it leaves the state of its verification
    assert found["jobs"][0]["error"] == 0
    assert found["jobs"][0]["read"]["io_bytes"] > 0


# -- TLS ---------------------------------------------------------------------------------------------------------


def test_certificates_decide_who_may_write(image, tmp_path):
    authority = certificates.Authority(tmp_path / "ca")
    server_files = authority.issue("localhost", server=True, hosts=["localhost"], addresses=["127.0.0.1"])
    folder = certificates.folder(tmp_path / "server", authority, server=server_files)
    readers = certificates.folder(tmp_path / "reader", authority, client=authority.issue("reader", server=False))
    writers = certificates.folder(tmp_path / "writer", authority, client=authority.issue("writer", server=False))
    others = certificates.folder(tmp_path / "other", authority, client=authority.issue("other", server=False))
    rules = ["--allow", "cn=writer", "--allow-read", "cn=reader"]
    tls = ["--tls-certificates", folder, "--tls-verify-clients"]
    nbdinfo = tool("nbdinfo")
    with serving(image, "--listen", "127.0.0.1:0", *tls, *rules) as server:
        assert server.uri.startswith("nbds://127.0.0.1:")
        for who, read_only in ((readers, True), (writers, False)):
            found = json.loads(run([nbdinfo, "--json", f"{server.uri}?tls-certificates={who}"]).stdout)
            assert found["TLS"]
            assert found["exports"][0]["is_read_only"] == read_only
        failed = run([nbdinfo, f"{server.uri}?tls-certificates={others}"], ok=(1,))
        assert "No such file or directory" in failed.stderr  # it does not exist for them
        failed = run([nbdinfo, server.uri.replace("nbds:", "nbd:")], ok=(1,))
        assert "Operation not supported" in failed.stderr  # what libnbd makes of TLS_REQD


# -- load, and what goes wrong under it ---------------------------------------------------------------------------


def test_a_reload_under_load_drops_nobody(image, tmp_path):
    exports = tmp_path / "exports.toml"
    text = f'[exports.disk]\nimage = "{image}"\nfrom = "raw"\n[exports.{{}}]\nimage = "mem:1M"\n'
    exports.write_text(text.format("a"))
    with serving("--exports", exports, "--socket", tmp_path / "s") as server:
        uri = f"nbd+unix:///disk?socket={tmp_path / 's'}"
        job = ["--name=x", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bs=4k", "--iodepth=16", "--size=16M"]
        fio = [tool("fio"), *job, "--time_based", "--runtime=3", "--output-format=json"]
        with subprocess.Popen(fio, stdout=subprocess.PIPE, text=True) as process:
            for number in range(20):
                exports.write_text(text.format(f"b{number}"))
                server.signal(signal.SIGHUP)
                server.said(lambda line, wanted=number + 1: sum("reloaded" in each for each in server.log) >= wanted)
            found = report(process.communicate(timeout=120)[0])
        assert process.returncode == 0
        assert found["jobs"][0]["error"] == 0


@pytest.mark.parametrize("more", [(), ("--from", "raw", "--workers", "2")], ids=["alone", "workers"])
def test_a_stop_under_load_is_eshutdown_and_soon(image, tmp_path, more):
    with serving(image, "--socket", tmp_path / "s", "--grace", "5s", "--log", "text", *more) as server:
        job = ["--name=x", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randread", "--bs=4k", "--iodepth=16"]
        fio = [tool("fio"), *job, "--size=16M", "--time_based", "--runtime=60", "--numjobs=2"]
        with subprocess.Popen(fio, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            server.said(lambda line: sum(" session " in each for each in server.log) >= 2)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert process.wait(60) != 0


def test_500_idle_connections_cost_little(image, tmp_path):
    limits = ("--max-connections", "600", "--max-connections-by-address", "600")
    with serving(image, "--socket", tmp_path / "s", *limits) as server:
        before = server.resident()
        clients = []
        try:
            for _ in range(500):
                clients.append(RawClient.at(tmp_path / "s"))
                clients[-1].go()
            clients[250].request(0, 1, 0, 4096)
            assert clients[250].reply(4096) == (0, 1, image.read_bytes()[:4096])
            assert server.resident() - before < 100 * MIB  # stacks, buffers of 16 KiB, and the like
        finally:
            for client in clients:
                client.sock.close()


def test_unread_replies_pin_no_more_than_the_budget(tmp_path):
    """2,000 reads of 32 MiB, none of which is taken."""
    requests = 2000
    with serving("mem:64M", "--socket", tmp_path / "s", "--request-timeout", "none") as server:
        with RawClient.at(tmp_path / "s") as warm:
            warm.go()
        before = server.resident()
        clients = [RawClient.at(tmp_path / "s") for _ in range(10)]
        try:
            for number, client in enumerate(clients):
                client.go(structured=number % 2 == 1)
                client.sock.settimeout(0.5)
                try:
                    for cookie in range(requests // len(clients)):
                        client.request(0, cookie, 0, 32 * MIB)
                except TimeoutError:
                    pass  # the server does not take more than it can serve: as good
            for _ in range(20):
                assert server.resident("VmHWM") - before <= (64 + 32) * MIB
                threading.Event().wait(0.05)
            with RawClient.at(tmp_path / "s") as other:
                other.go()
                other.request(0, 1, 0, 4096)
                assert other.reply(4096)[0] == 0
        finally:
            for client in clients:
                client.sock.close()


def test_a_slow_reader_does_not_slow_another(image, tmp_path):
    with serving(image, "--socket", tmp_path / "s") as server, RawClient.at(tmp_path / "s") as slow:
        slow.go()
        for cookie in range(50):
            slow.request(0, cookie, 0, 16 * MIB)
        run([tool("nbdcopy"), server.uri, tmp_path / "copy.img"])
        for cookie in range(3):
            assert slow.reply(16 * MIB)[:2] == (0, cookie)
    assert (tmp_path / "copy.img").read_bytes() == image.read_bytes()


def test_a_killed_client_leaves_the_others_alone(image, tmp_path):
    with serving(image, "--socket", tmp_path / "s") as server:
        job = ["--name=x", "--ioengine=nbd", f"--uri={server.uri}", "--rw=write", "--bs=1M", "--iodepth=8"]
        fio = [tool("fio"), *job, "--size=32M", "--time_based", "--runtime=60"]
        for _ in range(3):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(fio, **quiet) as victim, RawClient.at(tmp_path / "s") as client:
                client.go()
                for cookie in range(50):
                    client.request(1, cookie, 48 * MIB, 4096, b"z" * 4096)
                    assert client.reply()[:2] == (0, cookie)
                victim.kill()
                client.request(0, 99, 48 * MIB, 4096)
                assert client.reply(4096) == (0, 99, b"z" * 4096)


def test_a_port_is_reachable_by_both_families(image):
    with serving(image, "-r", "--listen", ":0") as server:
        port = int(server.uri.rsplit(":", 1)[1].rstrip("/"))
        nbdinfo = tool("nbdinfo")
        hosts = ["127.0.0.1", "[::1]"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
        for host in hosts:
            assert run([nbdinfo, "--size", f"nbd://{host}:{port}"]).stdout.strip() == str(64 * MIB)
