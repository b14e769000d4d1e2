"""TLS with the clients and servers of others, both directions, by certificates that the test makes."""

import random
import socket
import struct
import subprocess
import threading
import time
from contextlib import closing, contextmanager

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import NotTrusted, RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.client.connect import connect
from blockwright.nbd.dial import dial
from blockwright.nbd.protocol.server import Tls
from blockwright.nbd.server.connection import Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.server import Server
from blockwright.nbd.tls import client_start_tls, server_start_tls
from blockwright.nbd.transport import Deadline, SocketStream, receive_exactly
from blockwright.nbd.uri import parse_uri
from blockwright.testing import check_device
from tests.support.certificates import Authority, folder
from tests.support.command import blockwright
from tests.support.serving import serving
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
SIZE = 16 << 20
NEVER = Deadline(None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("tls")
    ours, others = Authority(base / "ours"), Authority(base / "others", "Another authority")
    client = ours.issue("alice", server=False)
    return {
        "good": folder(
            base / "good",
            ours,
            server=ours.issue("s", server=True, hosts=["localhost"], addresses=["127.0.0.1"]),
            client=client,
        ),
        "elsewhere": folder(base / "elsewhere", ours, server=ours.issue("s", server=True, hosts=["other.test"])),
        "expired": folder(
            base / "expired",
            ours,
            server=ours.issue("s", server=True, hosts=["localhost"], expired=True),
            client=ours.issue("alice", server=False, expired=True),
        ),
        "nobody": folder(base / "nobody", ours),
        "stranger": folder(base / "stranger", others, client=others.issue("alice", server=False)),
        "unknown": folder(base / "unknown", ours, client=others.issue("alice", server=False)),
    }


class Served:
    """Our server in this process, on a port of its own; ``events`` is what it logged."""

    def __init__(self, certificates, *, tls=Tls.REQUIRE, device=None):
        self.events = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.device = device or MemoryDevice(SIZE)
        options = Options(tls=tls, start_tls=server_start_tls(certificates, verify_clients=True), log=self._log)
        self.server = Server([Export("", self.device)], [listener], options)

    def _log(self, event, /, **fields):
        self.events.append((event, fields))

    def uri(self, certificates, scheme="nbds"):
        query = f"?tls-certificates={certificates}" if scheme == "nbds" else ""
        return f"{scheme}://localhost:{self.port}/{query}"

    def reasons(self):
        """Why sessions ended, when all have by themselves: a client may be gone before the server has seen why."""
        end = time.monotonic() + 60
        while self.server.connections and time.monotonic() < end:
            time.sleep(0.01)
        self.server.stop()
        self.server.wait()
        return [fields["reason"] for event, fields in self.events if event == "disconnected"]


@contextmanager
def served(certificates, **more):
    it = Served(certificates, **more)
    with it.server:
        yield it


# -- their clients, our server ---------------------------------------------------------------------------------------


def test_libnbd_is_served(made):
    with served(made["good"]) as it:
        told = run([tool("nbdinfo"), it.uri(made["good"])]).stdout
        assert "newstyle-fixed with TLS, using structured" in told
        assert "export-size: 16777216" in told


def test_nbdcopy_moves_what_its_source_verifies(made):
    with served(made["good"]) as it:
        uri = it.uri(made["good"])
        copy = tool("nbdcopy")
        script = f"{copy} $uri '{uri}' && {copy} '{uri}' $uri"
        run([tool("nbdkit"), "-U", "-", "sparse-random", "16M", "--run", script], timeout=120)


def qemu_io(it, certificates, *commands, ok=(0,)):
    creds = f"tls-creds-x509,id=t,dir={certificates},endpoint=client"
    image = f"driver=nbd,server.type=inet,server.host=localhost,server.port={it.port},tls-creds=t"
    arguments = [each for command in commands for each in ("-c", command)]
    return run([tool("qemu-io"), "--object", creds, "--image-opts", *arguments, image], ok=ok)


def test_qemu_writes_and_reads(made):
    with served(made["good"]) as it:
        told = qemu_io(
            it,
            made["good"],
            "write -P 0x5a 64k 3M",
            "aio_write -P 0x11 8M 1M",
            "aio_write -P 0x22 10M 2M",
            "aio_flush",
            "write -z 1M 64k",
            "discard 2M 64k",
            "flush",
            "read -P 0x5a 64k 960k",
            "read -P 0 1M 64k",
            "read -P 0x11 8M 1M",
            "read -P 0x22 10M 2M",
        ).stdout
        assert "Pattern verification failed" not in told
        assert it.device.read((3 << 20) - 1, 1) == b"\x5a"


@pytest.mark.parametrize(
    ("client", "said"),
    [("nobody", "no certificate"), ("unknown", "does not hold"), ("expired", "expired")],
)
def test_who_does_not_prove_himself_is_not_served(made, client, said):
    with served(made["good"]) as it:
        run([tool("nbdinfo"), it.uri(made[client])], ok=(1,))
        assert any(said in reason for reason in it.reasons()), it.events
        assert "session" not in [event for event, _ in it.events]


@pytest.mark.parametrize(("server", "client"), [("good", "stranger"), ("elsewhere", "good"), ("expired", "good")])
def test_a_server_that_does_not_prove_itself_is_not_used(made, server, client):
    with served(made[server]) as it:
        run([tool("nbdinfo"), it.uri(made[client])], ok=(1,))
        qemu_io(it, made[client], "read 0 512", ok=(1,))
        assert "session" not in [event for event, _ in it.events]


def test_nothing_is_told_in_the_clear_where_tls_is_required(made):
    with served(made["good"]) as it:
        done = run([tool("nbdinfo"), it.uri(None, "nbd")], ok=(1,))
        assert "export-size" not in done.stdout
        done = run([tool("nbdinfo"), "--list", it.uri(None, "nbd")], ok=(0, 1))
        assert "export-size" not in done.stdout
        assert "session" not in [event for event, _ in it.events]


def test_where_tls_is_allowed_both_are_served(made):
    with served(made["good"], tls=Tls.ALLOW) as it:
        assert "without TLS" in run([tool("nbdinfo"), it.uri(None, "nbd")]).stdout
        assert "with TLS" in run([tool("nbdinfo"), it.uri(made["good"])]).stdout


def read_until(output, wanted):
    while wanted not in (line := output.readline()):
        assert line, f"it ended before it said {wanted}"


def test_keys_are_updated_within_a_session(made):
    """OpenSSL's client asks for new keys (its command K), and both directions go on."""
    listener = socket.create_server(("127.0.0.1", 0))
    arguments = ["s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-tls1_3"]
    arguments += ["-CAfile", made["good"] / "ca-cert.pem"]
    process = subprocess.Popen(
        [tool("openssl"), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        listener.settimeout(60)
        stream = SocketStream(listener.accept()[0])
        stream.set_timeout(60, 60)
        tls, _ = server_start_tls(made["good"])(stream, None)
        with closing(tls):
            for turn in range(3):
                line = f"line {turn}\n".encode()
                process.stdin.write(line)
                process.stdin.flush()
                assert receive_exactly(tls, len(line), NEVER) == line
                tls.send(f"answer {turn}\n".encode())
                read_until(process.stdout, f"answer {turn}".encode())
                process.stdin.write(b"K\n")
                process.stdin.flush()
                # A line that is read together with the command is lost: that is how OpenSSL's client is.
                read_until(process.stdout, b"KEYUPDATE")
    finally:
        process.kill()
        process.communicate()
        listener.close()


# -- our client's TLS, their servers --------------------------------------------------------------------------------


def option(number, data=b""):
    return wire.OPTION.pack(wire.OPTION_MAGIC, number, len(data)) + data


def reply(stream):
    _, number, kind, length = wire.OPTION_REPLY.unpack(receive_exactly(stream, wire.OPTION_REPLY.size, NEVER))
    return number, kind, receive_exactly(stream, length, NEVER)


@contextmanager
def entered(uri):
    """A stream in transmission, inside TLS, with simple replies."""
    stream = dial(uri)
    stream.set_timeout(60, 60)
    try:
        receive_exactly(stream, wire.GREETING.size, NEVER)
        stream.send(wire.CLIENT_FLAGS.pack(3) + option(wire.Option.STARTTLS))
        assert reply(stream)[:2] == (wire.Option.STARTTLS, wire.ReplyType.ACK)
        stream, identity = client_start_tls(uri)(stream, uri.expected_host)
        name = uri.export.encode()
        stream.send(option(wire.Option.GO, struct.pack(">I", len(name)) + name + bytes(2)))
        while (answer := reply(stream))[1] == wire.ReplyType.INFO:
            pass
        assert answer[1] == wire.ReplyType.ACK, answer
        yield stream, identity
    finally:
        stream.close()


def request(command, cookie, offset, length):
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length)


def check_traffic(stream):
    """Write at random, many requests at once, and read it back."""
    chance = random.Random(7)
    parts = [(index * 512 * 1024, chance.randbytes(chance.choice((512, 4096, 300_032)))) for index in range(16)]
    stream.send(b"".join(request(1, at, at, len(data)) + data for at, data in parts))
    for _ in parts:
        _, error, _ = wire.SIMPLE_REPLY.unpack(receive_exactly(stream, wire.SIMPLE_REPLY.size, NEVER))
        assert error == 0
    wanted = dict(parts)
    stream.send(b"".join(request(0, at, at, len(data)) for at, data in parts))
    for _ in parts:
        _, error, cookie = wire.SIMPLE_REPLY.unpack(receive_exactly(stream, wire.SIMPLE_REPLY.size, NEVER))
        assert error == 0
        assert receive_exactly(stream, len(wanted[cookie]), NEVER) == wanted[cookie]
    stream.send(request(2, 0, 0, 0))


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:  # the name is there before anybody listens
            return False
    return True


@contextmanager
def started(argv, path):
    """A server of others that listens at a Unix socket."""
    process = subprocess.Popen([str(each) for each in argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not listens(path):
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{argv[0]} did not start: {process.stderr.read().decode()}", pytrace=False)
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


def nbdkit(certificates, path):
    command = [tool("nbdkit"), "-f", "-U", path, "--tls=require", "--tls-verify-peer"]
    return started([*command, f"--tls-certificates={certificates}", "memory", "16M"], path)


def qemu_nbd(certificates, path):
    disk = path.with_suffix(".img")
    disk.write_bytes(b"")
    with open(disk, "r+b") as file:
        file.truncate(SIZE)
    creds = f"tls-creds-x509,id=t,dir={certificates},endpoint=server,verify-peer=yes"
    command = [tool("qemu-nbd"), "-f", "raw", "-t", "-k", path, "-x", "", "--object", creds, "--tls-creds", "t"]
    return started([*command, disk], path)


SERVERS = {"nbdkit": nbdkit, "qemu-nbd": qemu_nbd}


@pytest.mark.parametrize("server", SERVERS)
def test_servers_of_others_take_us(made, tmp_path, server):
    path = tmp_path / "socket"
    with SERVERS[server](made["good"], path):
        uri = parse_uri(f"nbds+unix:///?socket={path}&tls-certificates={made['good']}&tls-hostname=localhost")
        with entered(uri) as (stream, identity):
            assert "localhost" in identity.names
            check_traffic(stream)


@pytest.mark.parametrize("server", SERVERS)
def test_our_device_lies_behind_their_tls(made, tmp_path, server):
    path = tmp_path / "socket"
    with SERVERS[server](made["good"], path):
        uri = f"nbds+unix:///?socket={path}&tls-certificates={made['good']}&tls-hostname=localhost"
        with connect(uri, writable=True) as device:
            assert device.session.tls
            check_random_traffic(device)


def check_random_traffic(device):
    """Several threads write and read, each in a part of its own."""
    errors = []

    def work(seed):
        chance, model = random.Random(seed), bytearray(1 << 20)
        try:
            device.zero(seed << 20, 1 << 20)
            for _ in range(60):
                length = chance.choice((512, 4096, 65_536, 500_224))
                at = chance.randrange(((1 << 20) - length) // 512 + 1) * 512
                if chance.random() < 0.5:
                    model[at : at + length] = data = chance.randbytes(length)
                    device.write((seed << 20) + at, data)
                else:
                    assert device.read((seed << 20) + at, length) == model[at : at + length]
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_our_device_and_our_server(made):
    with served(made["good"]) as it, connect(it.uri(made["good"]), writable=True) as device:
        check_random_traffic(device)


def test_our_device_keeps_the_contract_over_tls(made):
    """Each device over a server of its own."""
    servers = []

    def make():
        it = Served(made["good"], device=MemoryDevice(content=content))
        it.server.start()
        servers.append(it.server)
        return connect(it.uri(made["good"]), writable=True)

    content = random.Random(5).randbytes(200_003)
    try:
        check_device(make, content, operations=40)
    finally:
        for server in servers:
            server.stop()
            server.wait()


def test_our_client_says_whom_it_does_not_trust(made):
    with served(made["elsewhere"]) as it:
        done = blockwright("nbd", "info", it.uri(made["good"]), code=1)
        assert b"Hostname mismatch" in done.stderr


def test_the_command_serves_with_tls(made, tmp_path):
    certificates = ["--tls-certificates", made["good"], "--tls-verify-clients"]
    with serving("mem:1M", "--listen", "localhost:0", *certificates) as it:
        assert it.uri.startswith("nbds://localhost:")
        assert "with TLS" in run([tool("nbdinfo"), f"{it.uri}?tls-certificates={made['good']}"]).stdout
        run([tool("nbdinfo"), f"{it.uri}?tls-certificates={made['nobody']}"], ok=(1,))
        run([tool("nbdinfo"), it.uri.replace("nbds", "nbd")], ok=(1,))
        assert b"yes" in blockwright("nbd", "info", f"{it.uri}?tls-certificates={made['good']}").stdout
    blockwright("serve", "mem:1M", "--tls", "require", code=2)
    blockwright("serve", "mem:1M", "--tls", "off", *certificates, code=2)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("certificates", "client"), [("good", "stranger"), ("elsewhere", "good")])
def test_servers_that_do_not_prove_themselves_are_refused(made, tmp_path, server, certificates, client):
    path = tmp_path / "socket"
    with SERVERS[server](made[certificates], path):
        uri = parse_uri(f"nbds+unix:///?socket={path}&tls-certificates={made[client]}&tls-hostname=localhost")
        with pytest.raises(NotTrusted), entered(uri):
            pass


def test_nbdkit_refuses_who_has_no_certificate(made, tmp_path):
    path = tmp_path / "socket"
    with nbdkit(made["good"], path):
        uri = parse_uri(f"nbds+unix:///?socket={path}&tls-certificates={made['nobody']}&tls-hostname=localhost")
        # TLS 1.3 lets a client finish first: the refusal, or the end, comes with the first answer.
        with pytest.raises((RemoteProtocolError, OSError)), entered(uri):
            pass
