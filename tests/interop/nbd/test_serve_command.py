"""The command as a process: how it starts, listens, reloads and ends, seen by libnbd's and QEMU's clients."""

import json
import os
import pwd
import random
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack

import pytest

from tests.support.command import COMMAND, UNMEASURED, blockwright, files_in
from tests.support.ports import free_port
from tests.support.rawnbd import RawClient
from tests.support.serving import serving
from tests.support.tools import run, tool

MIB = 1 << 20
CONNECTIONS = ("connections", 'export_connections{export="disk"}')


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(7).randbytes(4 * MIB) + bytes(4 * MIB))
    return path


def size_of(uri):
    return int(run([tool("nbdinfo"), "--size", uri]).stdout)


def info(uri, *more):
    return json.loads(run([tool("nbdinfo"), "--json", *more, uri]).stdout)


def test_addresses_are_printed_once_clients_may_come(image, tmp_path):
    path = tmp_path / "nbd.sock"
    arguments = (image, "--socket", path, "--listen", "127.0.0.1:0", "--socket-mode", "600")
    with serving(*arguments, count=2) as server:
        assert server.addresses[0] == f"nbd+unix:///?socket={path}"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert [size_of(uri) for uri in server.addresses] == [8 * MIB] * 2
    assert files_in(tmp_path) == ["disk.img"]


def test_what_cannot_be_served_is_one_line_and_nothing_is_left(image, tmp_path):
    sock = tmp_path / "nbd.sock"
    for code, *arguments in (
        (5, tmp_path / "missing.img"),
        (2, image, "--name", "a", "--name", "b"),
        (2,),
        (2, image, "--exports", image),
        (2, "--exports", image, "--allow", "unix"),
        (2, "--exports", image, "-r"),
        (2, "--exports", image, "--overlay"),
        (2, image, "--allow", "nobody-knows"),
        (2, image, "--block-size", "3,4096,1M"),
        (2, image, "--block-size", "4096"),
        (2, "mem:513", "--block-size", "512,4k,1M"),  # its last byte would be out of reach
        (2, image, "--listen", "nonsense:1:2"),
        (2, image, "--idle-timeout", "soon"),
        (2, image, "--request-timeout", "0"),
        (2, image, "--socket-mode", "999"),
        (2, image, "--stdio"),
        (2, image, f"--overlay={image}"),
        (1, image, "--partition", "3"),  # there is no table
        (2, image, image),  # of one name
        (5, "--exports", tmp_path / "missing.toml"),
        (5, image, "--user", "no-such-user"),
        (2, image, "--max-request", "5000"),
        (5, image, "--pid-file", tmp_path / "missing" / "pid"),
        (2, image, "--pid-file", ""),
        (5, image, "--tls-certificates", ""),  # and not in the clear
        (2, image, "--name", "\udcff"),
        (2, image, "--description", "\udcff"),
    ):
        more = [] if "--stdio" in arguments else ["--socket", sock]
        blockwright("serve", *arguments, *more, code=code)
        assert files_in(tmp_path) == ["disk.img"], arguments
    blockwright("serve", image, "--socket", "", code=2)  # and not on TCP instead


def test_two_servers_do_not_share_a_socket(image, tmp_path):
    path = tmp_path / "nbd.sock"
    with serving(image, "-r", "--socket", path) as server:
        blockwright("serve", image, "-r", "--socket", path, code=1)
        assert size_of(server.uri) == 8 * MIB


def test_a_killed_server_s_socket_does_not_stand_in_the_way(image, tmp_path):
    path = tmp_path / "nbd.sock"
    with serving(image, "--socket", path, code=None) as server:
        server.process.kill()
        server.wait()
        assert path.exists()
        with serving(image, "--socket", path) as second:
            assert size_of(second.uri) == 8 * MIB


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(image, tmp_path, number):
    arguments = ("--socket", tmp_path / "s", "--pid-file", tmp_path / "pid", "--log", "text", "--grace", "9999999h")
    with serving(image, *arguments) as server:
        assert (tmp_path / "pid").read_text() == f"{server.process.pid}\n"
        with RawClient.at(tmp_path / "s") as client:
            client.go()
            server.signal(number)
            assert client.ended()
        assert server.wait() == 0
        assert "the server stopped" in server.said("disconnected")
    assert files_in(tmp_path) == ["disk.img"]


def test_a_stop_answers_what_is_under_way_and_a_second_signal_does_not_wait(tmp_path):
    """A client that does not take its replies keeps the first signal waiting, and not the second."""
    arguments = ("mem:256M", "--socket", tmp_path / "s", "--grace", "none", "--log", "text")
    with serving(*arguments, code=130) as server, RawClient.at(tmp_path / "s") as client:
        client.go()
        for cookie in range(8):
            client.request(0, cookie=cookie, length=32 * MIB)
        client.take(1 << 16)  # it is under way
        server.signal(signal.SIGTERM)
        server.said("stopping")
        assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.wait() == 130
    assert files_in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_it_serves_as_another_user(image, tmp_path):
    """Also where that user may not read Python or this package, and so no worker process starts."""
    with serving(image, "--from", "raw", "--socket", tmp_path / "s", "--user", "nobody", env=UNMEASURED) as server:
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
        assert set(status["Uid"].split()) == {str(pwd.getpwnam("nobody").pw_uid)}
        assert int(status["CapEff"], 16) == 0
        with ExitStack() as stack:
            for number in range(3):
                client = stack.enter_context(RawClient.at(tmp_path / "s"))
                client.go()
                client.request(1, 1, number, 1, bytes([number]))
                assert client.reply() == (0, 1, b"")
    assert image.read_bytes()[:3] == b"\0\1\2"


def test_ends_with_its_last_client(image, tmp_path):
    with serving(image, "--socket", tmp_path / "s", "--exit-with-last") as server:
        with RawClient.at(tmp_path / "s") as first, RawClient.at(tmp_path / "s") as second:
            first.go()
            second.go()
        assert server.wait() == 0


def test_ends_with_its_parent(image, tmp_path):
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline(), child.pid, flush=True)\n"
        "input()\n"
    )
    command = [*COMMAND, "serve", image, "--socket", tmp_path / "s", "--exit-with-parent"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout.readline().startswith("nbd+unix")
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(1200):  # the socket goes away as the last thing it does
        if not os.path.exists(tmp_path / "s"):
            break
        time.sleep(0.05)
    assert not os.path.exists(tmp_path / "s"), pid


# -- where clients come from -------------------------------------------------------------------------------------


def test_socket_activation_serves_whoever_started_it(image, tmp_path):
    nbdinfo = tool("nbdinfo")
    found = run([nbdinfo, "--json", "--", "[", *COMMAND, "serve", image, "--name", "disk", "-r", "]"]).stdout
    assert json.loads(found)["exports"][0] == json.loads(found)["exports"][0] | {
        "export-name": "disk",
        "export-size": 8 * MIB,
        "is_read_only": True,
        "can_multi_conn": True,
        "can_df": True,
    }
    copy = tmp_path / "copy.img"
    run([tool("nbdcopy"), "--", "[", *COMMAND, "serve", image, "]", copy])
    assert copy.read_bytes() == image.read_bytes()


def test_socket_activation_says_nothing_on_standard_output(image):
    command = [tool("nbdcopy"), "--", "[", *COMMAND, "serve", str(image), "]", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert done.stdout == image.read_bytes()


def test_standard_input_may_be_a_socket(image):
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([*COMMAND, "serve", str(image), "--stdio"], stdin=theirs, stdout=theirs) as process:
        theirs.close()
        with RawClient(ours) as client:
            assert client.go() == 8 * MIB
            client.request(0, cookie=5, offset=4096, length=4096)
            assert client.reply(4096) == (0, 5, image.read_bytes()[4096:8192])
            client.request(2)
            assert client.ended()
        assert process.wait(60) == 0


def test_standard_input_and_output_may_be_pipes(image):
    """nbdkit's clients do not speak over pipes, so this is a client of our own."""
    with subprocess.Popen(
        [*COMMAND, "serve", str(image), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        ours, theirs = socket.socketpair()
        # One end of a socket pair, with a thread for each direction, makes a socket of the two pipes.
        import threading

        def pump(read, write, finish):
            while data := read(65536):
                write(data)
            finish()

        with ours, theirs:
            threads = [
                threading.Thread(target=pump, args=(theirs.recv, process.stdin.write, process.stdin.close)),
                threading.Thread(
                    target=pump,
                    args=(process.stdout.read, theirs.sendall, lambda: theirs.shutdown(socket.SHUT_WR)),
                ),
            ]
            for thread in threads:
                thread.start()
            client = RawClient(ours)
            assert client.go() == 8 * MIB
            client.request(0, cookie=9, length=4 * MIB)
            client.request(1, cookie=10, offset=4 * MIB, length=2 * MIB, data=b"w" * 2 * MIB)
            assert client.reply(4 * MIB) == (0, 9, image.read_bytes()[: 4 * MIB])
            assert client.reply() == (0, 10, b"")
            client.request(2)
            ours.shutdown(socket.SHUT_WR)
            assert client.ended()
            for thread in threads:
                thread.join()
        assert process.wait(60) == 0
    assert image.read_bytes()[4 * MIB : 6 * MIB] == b"w" * 2 * MIB


def test_systemd_is_told(image, tmp_path):
    path = str(tmp_path / "notify")
    exports = tmp_path / "exports.toml"
    exports.write_text(f'[exports.disk]\nimage = "{image}"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind(path)
        arguments = ("--exports", exports, "--socket", tmp_path / "s")
        with serving(*arguments, env={"NOTIFY_SOCKET": path}) as server:
            ready = manager.recv(4096).decode().split("\n")
            assert {"READY=1", "STATUS=serving 1 export", f"MAINPID={server.process.pid}"} == set(ready)
            server.signal(signal.SIGHUP)
            assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).startswith(b"READY=1")
            server.signal(signal.SIGTERM)
            assert manager.recv(4096) == b"STOPPING=1"
            assert server.wait() == 0


# -- what is served ----------------------------------------------------------------------------------------------


def test_several_images_have_names(image, tmp_path):
    with serving(image, "mem:1M", "null:2M", "--socket", tmp_path / "s", "--description", "three") as server:
        listed = info(server.uri, "--list")["exports"]
        assert [(each["export-name"], each["export-size"]) for each in listed] == [
            ("disk.img", 8 * MIB),
            ("mem:1M", MIB),
            ("null:2M", 2 * MIB),
        ]
        assert {each["description"] for each in listed} == {"three"}


def test_contexts_selected_for_the_default_export_count(image, tmp_path):
    """It is asked for by an empty name and told by its own."""
    with serving(image, "--name", "disk", "--socket", tmp_path / "s") as server:
        default = server.uri.replace("/disk?", "/?")
        assert default != server.uri
        found = run([tool("nbdinfo"), "--map", "--json", default]).stdout
        assert [each["type"] for each in json.loads(found)][-1] in (0, 3)


def test_a_directory_is_a_disk_at_once(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_text("hello, disk\n")
    (tree / "big").write_bytes(random.Random(3).randbytes(3 * MIB))
    copy = tmp_path / "copy.img"
    with serving(tree, "--table", "none", "--socket", tmp_path / "s") as server:
        run([tool("nbdcopy"), server.uri, copy])
        before = files_in(tmp_path)
    run([tool("e2fsck"), "-fn", copy])
    assert run([tool("debugfs"), "-R", "cat /hello", copy]).stdout == "hello, disk\n"
    assert before == ["copy.img", "s", "tree"]
    blockwright("build", tree, "-o", tmp_path / "built.img", "--table", "none")
    assert copy.read_bytes() == (tmp_path / "built.img").read_bytes()


def test_an_archive_is_a_disk_too_and_a_compressed_one_says_why_not(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_text("hello, archive\n")
    run(["tar", "-C", tree, "-cf", tmp_path / "tree.tar", "."])
    run(["tar", "-C", tree, "-czf", tmp_path / "tree.tar.gz", "."])
    with serving(tmp_path / "tree.tar", "--socket", tmp_path / "s", "--table", "none", "--overlay") as server:
        run([tool("nbdcopy"), server.uri, tmp_path / "copy.img"])
    assert run([tool("debugfs"), "-R", "cat /hello", tmp_path / "copy.img"]).stdout == "hello, archive\n"
    said = blockwright("serve", tmp_path / "tree.tar.gz", "--socket", tmp_path / "s", code=1).stderr
    assert b"compressed with gzip" in said
    with serving(tmp_path / "tree.tar", "--from", "raw", "-r", "--socket", tmp_path / "s") as server:
        assert size_of(server.uri) == (tmp_path / "tree.tar").stat().st_size


@pytest.mark.parametrize("where", ["", "scratch"])
def test_an_overlay_takes_writes_and_leaves_the_image_alone(image, tmp_path, where):
    before = image.read_bytes()
    overlay = f"--overlay={tmp_path / where}" if where else "--overlay"
    with serving(overlay, image, "--socket", tmp_path / "s") as server:
        run([tool("qemu-io"), "-f", "raw", "-c", "write -P 0x5a 1M 1M", "-c", "flush", server.uri])
        run([tool("qemu-io"), "-f", "raw", "-c", "read -P 0x5a 1M 1M", server.uri])
        if where:
            os.listdir(f"/proc/{server.process.pid}/fd")
            assert files_in(tmp_path) == ["disk.img", "s"]  # its space goes with the process
    assert image.read_bytes() == before
    with serving(overlay, image, "--socket", tmp_path / "s") as server:  # it begins anew
        run([tool("nbdcopy"), server.uri, tmp_path / "copy.img"])
    assert (tmp_path / "copy.img").read_bytes() == before


def test_a_raw_image_cannot_be_made_another_format_unless_raw_was_said(image, tmp_path):
    qemu_io = tool("qemu-io")
    write = ["-f", "raw", "-c", "write -P 0x51 0 1", "-c", "write -P 0x46 1 1", "-c", "write -P 0x49 2 1"]
    last = ["-c", "write -P 0xfb 3 1"]
    with serving(image, "--socket", tmp_path / "s", "--block-size", "1,4k,1M") as server:
        with RawClient.at(tmp_path / "s") as client:
            client.go()
            client.request(1, length=4, data=b"QFI\xfb")
            assert client.reply()[0] == 1  # EPERM
            client.request(1, length=3, data=b"QFI")
            assert client.reply()[0] == 0
            client.request(1, offset=3, length=1, data=b"\xfb")
            assert client.reply()[0] == 1
        assert "look like qcow2" in server.said("request failed")
    assert image.read_bytes()[:3] == b"QFI"
    with serving(image, "--socket", tmp_path / "s", "--from", "raw") as server:
        run([qemu_io, *write, *last, server.uri])
    assert image.read_bytes()[:4] == b"QFI\xfb"
    assert b"qcow2" in blockwright("serve", image, "--socket", tmp_path / "s", code=1).stderr


# -- reload and metrics ------------------------------------------------------------------------------------------


def test_exports_are_reloaded_and_sessions_go_on(image, tmp_path):
    exports = tmp_path / "exports.toml"
    exports.write_text('[exports.disk]\nimage = "disk.img"\n[exports.gone]\nimage = "mem:1M"\n')
    arguments = ("--exports", exports, "--socket", tmp_path / "s")
    with serving(*arguments) as server, RawClient.at(tmp_path / "s") as disk, RawClient.at(tmp_path / "s") as gone:
        disk.go("disk")
        gone.go("gone")
        exports.write_text(
            'default = "new"\n[exports.disk]\nimage = "disk.img"\ndescription = "changed"\n'
            '[exports.new]\nimage = "mem:3M"\n'
        )
        server.signal(signal.SIGHUP)
        server.said("reloaded exports=2")
        listed = info(server.uri, "--list")["exports"]
        assert [each["export-name"] for each in listed] == ["disk", "new"]
        assert size_of(f"nbd+unix:///?socket={tmp_path / 's'}") == 3 * MIB
        # The image is locked for one writer, and the changed export shares what is open.
        assert listed[0]["description"] == "changed"
        for client in (disk, gone):
            client.request(1, cookie=3, length=4, data=b"more")
            assert client.reply() == (0, 3, b"")
        exports.write_text("[exports.disk]\nimage = 7\n")
        server.signal(signal.SIGHUP)
        assert f"{exports}:2: exports.disk.image" in server.said("not reloaded")
        assert size_of(f"nbd+unix:///disk?socket={tmp_path / 's'}") == 8 * MIB


def test_metrics_are_scraped(image, tmp_path):
    port = free_port()
    arguments = (image, "--name", "disk", "--socket", tmp_path / "s", "--metrics", f"127.0.0.1:{port}")
    with serving(*arguments) as server:
        run([tool("qemu-io"), "-f", "raw", "-c", "read 0 1M", "-c", "write 0 64k", server.uri])
        with RawClient.at(tmp_path / "s") as client:
            client.go("disk")
            until = time.monotonic() + 60
            while True:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                    text = answer.read().decode()
                samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
                # The server hears a little later than qemu-io ends that it has gone, also between the two.
                counted = [samples[f"blockwright_nbd_{each}"] for each in CONNECTIONS]
                if counted == ["1", "1"] or time.monotonic() > until:
                    break
                time.sleep(0.01)
    assert counted == ["1", "1"]
    assert int(samples['blockwright_nbd_request_bytes_total{export="disk",command="write"}']) == 65536
    assert int(samples['blockwright_nbd_request_bytes_total{export="disk",command="read"}']) >= MIB


def test_the_log_is_json_where_asked_for(image, tmp_path):
    with serving(image, "--name", "disk", "--socket", tmp_path / "s", "--log", "json") as server:
        with RawClient.at(tmp_path / "s") as client:
            assert client.option(6, b"\0\0\0\4none\0\0")[-1][0] == (1 << 31) + 6
            client.go("disk")
        server.said("disconnected")
    events = [json.loads(line) for line in server.log]
    assert [each["event"] for each in events][:4] == ["connected", "option refused", "session", "disconnected"]
    assert events[1]["reason"] == "there is no export 'none'"
    assert events[2] | {"export": "disk", "replies": "simple"} == events[2]
    assert events[3]["reason"] == "the client hung up"


@pytest.mark.parametrize("how", ["file", "raw", "read-only", "memory", "overlay", "directory", "coarse"])
def test_our_own_probe_finds_nothing(image, tmp_path, how):
    """Every rule that `nbd check` knows, of what a user can serve."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * MIB)
    arguments = {
        "file": [image],
        "raw": [image, "--from", "raw", "--workers", "2"],
        "read-only": [image, "-r"],
        "memory": ["mem:64M"],
        "overlay": [image, "--overlay"],
        "directory": [tree],
        "coarse": [image, "--block-size", "4k,1M,32M", "--max-request", "300k"],
    }[how]
    more = [] if how in ("read-only", "directory") else ["--write"]
    with serving(*arguments, "--socket", tmp_path / "s", "--log", "off") as server:
        blockwright("nbd", "check", "--timeout", "60", *more, server.uri)
