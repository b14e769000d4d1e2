import hashlib
import random
import socket
import ssl
import struct
import threading
import time
from contextlib import closing

import pytest

from blockwright.errors import NotTrusted, RemoteProtocolError, UsageError
from blockwright.nbd import wire
from blockwright.nbd.protocol.server import Offer, Tls, handshake
from blockwright.nbd.protocol.session import ExportInfo
from blockwright.nbd.protocol.steps import Identity, StartTls
from blockwright.nbd.tls import LARGEST, PIECE, TlsStream, client_start_tls, server_start_tls
from blockwright.nbd.transport import Deadline, SocketStream, run
from blockwright.nbd.uri import parse_uri
from tests.support.certificates import Authority, folder
from tests.support.tlspair import begin, joined, sockets

pytestmark = pytest.mark.unprivileged
HOST = "server.test"
HEAD = struct.Struct("<BII")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Directories of certificates: good ones, and for each way to be wrong one."""
    base = tmp_path_factory.mktemp("tls")
    ours, others = Authority(base / "ours"), Authority(base / "others", "Another authority")
    server = ours.issue("the server", server=True, hosts=[HOST, "alias.test"], addresses=["127.0.0.1"])
    client = ours.issue("alice", server=False, hosts=["alice.test"])
    revoked = ours.issue("mallory", server=False)
    return {
        "good": folder(base / "good", ours, server=server, client=client),
        "stranger": folder(base / "stranger", others, client=others.issue("alice", server=False)),
        "trusting stranger": folder(base / "mixed", ours, client=others.issue("alice", server=False)),
        "nobody": folder(base / "nobody", ours),
        "expired": folder(
            base / "expired",
            ours,
            server=ours.issue("the server", server=True, hosts=[HOST], expired=True),
            client=ours.issue("alice", server=False, expired=True),
        ),
        "revoking": folder(base / "revoking", ours, server=server, revoked=ours.revoke(revoked[0])),
        "revoked": folder(base / "revoked", ours, client=revoked),
    }


def uri(path, host=HOST, extra=""):
    return parse_uri(f"nbds://{host}/?tls-certificates={path}{extra}")


@pytest.fixture
def both(made):
    return server_start_tls(made["good"], verify_clients=True), client_start_tls(uri(made["good"])), HOST


def receive(stream, length):
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = stream.receive_into(view)
        assert count, f"the stream ended {len(view)} bytes early"
        view = view[count:]
    return bytes(data)


# -- who is who ------------------------------------------------------------------------------------------------------


def test_each_end_learns_the_names_of_the_other(both):
    with joined(*both) as ((server, client_identity), (client, server_identity)):
        assert client_identity == Identity(("alice", "alice.test"))
        assert server_identity == Identity(("the server", HOST, "alias.test", "127.0.0.1"))
        assert server.tls
        assert client.session.version() in ("TLSv1.2", "TLSv1.3")


def test_names_that_nobody_verified_are_none(made):
    server = server_start_tls(made["good"])
    client = client_start_tls(uri(made["stranger"], extra="&tls-verify-peer=0"))
    with joined(server, client, HOST) as ((_, client_identity), (_, server_identity)):
        assert client_identity == server_identity == Identity()


@pytest.mark.parametrize("host", ["other.test", "127.0.0.2", "est", "server.test.evil"])
def test_a_certificate_for_another_host_is_refused(made, host):
    outcomes = begin(server_start_tls(made["good"]), client_start_tls(uri(made["good"], host)), host)
    assert isinstance(outcomes[1], NotTrusted)
    assert host in str(outcomes[1])


@pytest.mark.parametrize("host", [HOST, "alias.test", "127.0.0.1"])
def test_every_name_in_a_certificate_will_do(made, host):
    with joined(server_start_tls(made["good"]), client_start_tls(uri(made["good"], host)), host):
        pass


def test_over_a_unix_socket_the_authority_is_checked_and_no_name(made):
    address = f"nbds+unix:///?socket=x&tls-certificates={made['good']}"
    with joined(server_start_tls(made["good"]), client_start_tls(parse_uri(address)), None):
        pass
    address = address.replace(str(made["good"]), str(made["stranger"]))
    outcomes = begin(server_start_tls(made["good"]), client_start_tls(parse_uri(address)), None)
    assert isinstance(outcomes[1], NotTrusted)


@pytest.mark.parametrize(
    ("server", "client", "said"),
    [
        ("good", "stranger", "unable to get local issuer"),
        ("expired", "good", "expired"),
    ],
)
def test_a_server_that_does_not_hold_is_refused(made, server, client, said):
    outcomes = begin(server_start_tls(made[server]), client_start_tls(uri(made[client])), HOST)
    assert isinstance(outcomes[1], NotTrusted)
    assert said in str(outcomes[1])
    assert isinstance(outcomes[0], RemoteProtocolError)
    assert str(outcomes[0]).startswith("TLS: the peer refuses: ")


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ("nobody", "no certificate"),
        ("trusting stranger", "unable to get local issuer"),
        ("expired", "expired"),
        ("revoked", "revoked"),
    ],
)
def test_a_client_that_does_not_hold_is_refused(made, client, said):
    server = server_start_tls(made["revoking"], verify_clients=True)
    address = uri(made[client])
    outcomes = begin(server, client_start_tls(address), HOST)
    assert isinstance(outcomes[0], NotTrusted)
    assert said in str(outcomes[0])
    # With TLS 1.3 a client is done before its certificate is looked at: it learns by its first receive.
    if not isinstance(outcomes[1], Exception):
        stream, _ = outcomes[1]
        with closing(stream), pytest.raises((RemoteProtocolError, ConnectionError)):
            assert stream.receive_into(memoryview(bytearray(1))) != 0


def test_a_client_that_is_not_revoked_passes_a_list_of_revoked(made):
    server = server_start_tls(made["revoking"], verify_clients=True)
    with joined(server, client_start_tls(uri(made["good"])), HOST) as ((_, identity), _):
        assert "alice" in identity.names


def test_older_protocols_are_refused(made):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1

    def old(stream, host):
        stream.socket.settimeout(30)
        return context.wrap_socket(stream.socket.dup()), Identity()

    outcomes = begin(server_start_tls(made["good"]), old, None)
    assert isinstance(outcomes[0], RemoteProtocolError)
    assert isinstance(outcomes[1], ssl.SSLError)


def test_a_host_that_is_none_is_refused_by_name(both):
    first, second = sockets()
    with closing(first), closing(second), pytest.raises(UsageError, match="no host name"):
        both[1](second, ".x")


# -- bytes -----------------------------------------------------------------------------------------------------------


def writer(stream, number, seed, total, digest):
    chance = random.Random(f"{seed} {number}")
    sent = sequence = 0
    while sent < total:
        length = chance.choice((0, 1, 100, 4096, 16384, 70_000, PIECE, PIECE + 1, 1_000_000))
        body = chance.randbytes(length)
        stream.send(HEAD.pack(number, sequence, length) + body)
        digest.update(body)
        sent += length
        sequence += 1
    stream.send(HEAD.pack(number, 0xFFFFFFFF, 0))


def reader(stream, digests, errors):
    try:
        sequences, open_ends = dict.fromkeys(digests, 0), len(digests)
        while open_ends:
            number, sequence, length = HEAD.unpack(receive(stream, HEAD.size))
            if sequence == 0xFFFFFFFF:
                open_ends -= 1
                continue
            assert sequence == sequences[number], "messages of one sender stay in order"
            sequences[number] += 1
            digests[number].update(receive(stream, length))
    except BaseException as error:  # noqa: BLE001 - told by the test's own thread
        errors.append(error)
        stream.shut_down()


def test_a_reader_and_four_writers_at_each_end(both):
    seed, total = random.randrange(1 << 32), 6_000_000
    with joined(*both) as ((server, _), (client, _)):
        errors: list[BaseException] = []
        threads, wanted, found = [], [], []
        for stream, other in ((server, client), (client, server)):
            sent = {number: hashlib.sha256() for number in range(4)}
            got = {number: hashlib.sha256() for number in range(4)}
            wanted.append(sent)
            found.append(got)
            name = f"{seed} {len(wanted)}"
            threads += [
                threading.Thread(target=writer, args=(stream, number, name, total, sent[number])) for number in sent
            ]
            threads.append(threading.Thread(target=reader, args=(other, got, errors)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, f"seed {seed}: {errors}"
        for sent, got in zip(wanted, found, strict=True):
            assert [each.digest() for each in sent.values()] == [each.digest() for each in got.values()], seed


def test_many_records_leave_by_one_send_and_arrive_by_few_receives(both):
    pair = sockets()
    with joined(*both, pair) as ((server, _), (client, _)):
        client.send(b"begin")
        assert receive(server, 5) == b"begin"
        del pair[1].sends[:]
        data = random.randbytes(3 * PIECE)
        thread = threading.Thread(target=client.send, args=(data,))
        thread.start()
        assert receive(server, len(data)) == data
        thread.join()
        assert len(pair[1].sends) == 3
        assert all(PIECE < each < PIECE * 1.01 for each in pair[1].sends)


def test_what_belongs_together_leaves_together(both):
    pair = sockets()
    with joined(*both, pair) as ((server, _), (client, _)):
        del pair[1].sends[:]
        client.send(b"head", more=True)
        assert pair[1].sends == []
        client.send(b"body")
        assert len(pair[1].sends) == 1
        assert receive(server, 8) == b"headbody"


def test_more_is_no_promise_to_keep_everything(both):
    pair = sockets()
    with joined(*both, pair) as ((server, _), (client, _)):
        del pair[1].sends[:]
        part = bytes(PIECE // 2)

        def send():
            for _ in range(4):
                client.send(part, more=True)
            client.send(b"end")

        thread = threading.Thread(target=send)
        thread.start()
        assert receive(server, 2 * PIECE + 3)[-3:] == b"end"
        thread.join()
        assert max(pair[1].sends) <= 2 * PIECE


def test_send_now_takes_what_goes_and_no_byte_twice(both):
    with joined(*both) as ((server, _), (client, _)):
        data = memoryview(random.randbytes(20 * PIECE + 77))
        sent = count = client.send_now(data)
        while count:
            count = client.send_now(data[sent:])
            sent += count
        assert 0 <= sent < len(data), "nobody reads, so it cannot all be out"
        assert client.send_now(data[sent:]) == 0
        thread = threading.Thread(target=client.send, args=(data[sent:],))
        thread.start()
        found = receive(server, len(data))
        thread.join()
        assert found == data
        assert client.send_now(memoryview(b"after")) == 5
        assert receive(server, 5) == b"after"


def test_send_now_goes_on_where_it_stopped(both):
    with joined(*both) as ((server, _), (client, _)):
        data = memoryview(random.randbytes(10 * PIECE))
        sent, found = 0, bytearray()
        buffer = memoryview(bytearray(30_000))
        while len(found) < len(data):
            if sent < len(data):
                sent += client.send_now(data[sent : sent + PIECE + 5000])
            count = server.receive_now(buffer)
            if count:
                found += buffer[:count]
        assert found == data


def test_receive_now_does_not_wait(both):
    with joined(*both) as ((server, _), (client, _)):
        buffer = memoryview(bytearray(100))
        assert server.receive_now(buffer) is None
        client.send(b"hello")
        assert server.receive_now(buffer[:2]) == 2
        assert server.receive_now(buffer[2:]) == 3
        assert bytes(buffer[:5]) == b"hello"
        assert server.receive_now(buffer) is None


def test_half_a_record_is_nothing_yet(both):
    pair = sockets()
    with joined(*both, pair) as ((server, _), (client, _)):
        with client._lock:
            client.session.write(b"in two parts")
            record = client._outgoing.read()
        pair[1].send(record[:9])
        buffer = memoryview(bytearray(100))
        assert server.receive_now(buffer) is None
        pair[1].send(record[9:])
        assert server.receive_now(buffer) == 12


def test_a_timeout_is_the_sockets(both):
    with joined(*both) as ((server, _), _):
        server.set_timeout(0.01, 0.01)
        assert server.timeout_s == 0.01
        with pytest.raises(TimeoutError):
            server.receive_into(memoryview(bytearray(1)))
        with pytest.raises(TimeoutError):
            server.send(bytes(50 * PIECE))
        with pytest.raises(BrokenPipeError):
            server.send(b"a record went out by half, and nothing can follow it")


def test_an_idle_streams_buffer_is_given_back(both):
    with joined(*both) as ((server, _), (client, _)):
        thread = threading.Thread(target=client.send, args=(bytes(10 * PIECE),))
        thread.start()
        receive(server, 10 * PIECE)
        thread.join()
        grown = len(server._room)
        server.set_timeout(0.01, None)
        with pytest.raises(TimeoutError):
            server.receive_into(memoryview(bytearray(1)))
        assert len(server._room) < grown <= LARGEST


def test_no_file_is_sent_past_tls(both, tmp_path):
    with joined(*both) as ((server, _), _), open(__file__, "rb") as file:
        assert server.send_file(file.fileno(), 0, 10) is None


# -- ends ------------------------------------------------------------------------------------------------------------


def plain_client(path):
    context = ssl.create_default_context(cafile=path / "ca-cert.pem")
    context.load_cert_chain(path / "client-cert.pem", path / "client-key.pem")

    def start(stream, host):
        stream.socket.settimeout(30)
        sock = context.wrap_socket(stream.socket.dup(), server_hostname=host, suppress_ragged_eofs=False)
        return sock, Identity()

    return start


def test_close_ends_tls_before_the_socket(made, both):
    pair = sockets()
    (server, _), (client, _) = begin(both[0], plain_client(made["good"]), HOST, pair)
    pair[1].close()
    server.send(b"bye")
    server.close()
    server.close()
    assert client.recv(10) == b"bye"
    assert client.recv(10) == b""  # would raise SSLEOFError without close_notify
    client.close()


@pytest.mark.parametrize("clean", [True, False])
def test_a_peer_that_ends_is_the_end(made, both, clean):
    pair = sockets()
    (server, _), (client, _) = begin(both[0], plain_client(made["good"]), HOST, pair)
    pair[1].close()
    client.sendall(b"last")
    if clean:
        client.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
    client.close()
    assert receive(server, 4) == b"last"
    buffer = memoryview(bytearray(4))
    assert server.receive_into(buffer) == 0
    assert server.receive_into(buffer) == 0
    assert server.receive_now(buffer) == 0
    server.close()


def test_shut_down_wakes_the_receiver(both):
    with joined(*both) as ((server, _), _):
        found = []
        thread = threading.Thread(target=lambda: found.append(server.receive_into(memoryview(bytearray(1)))))
        thread.start()
        server.shut_down()
        thread.join()
        assert found == [0]


def test_bytes_of_a_stranger_are_an_error(both):
    pair = sockets()
    with joined(*both, pair) as ((server, _), _):
        pair[1].send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(RemoteProtocolError, match="TLS: "):
            server.receive_into(memoryview(bytearray(10)))


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_in_the_handshake_are_an_error(both, seed):
    chance = random.Random(seed)
    data = chance.randbytes(chance.choice((1, 5, 100, 5000)))
    if seed % 2:
        data = b"\x16\x03\x01" + struct.pack(">H", len(data)) + b"\x01\x00" + struct.pack(">H", len(data)) + data
    first, second = sockets()
    with closing(first), closing(second):
        second.send(data)
        second.shut_down()
        with pytest.raises((RemoteProtocolError, ConnectionError)):
            both[0](first, None)


@pytest.mark.parametrize("seed", range(40))
def test_any_change_of_ciphertext_is_an_error(both, seed):
    pair = sockets()
    chance = random.Random(seed)
    with joined(*both, pair) as ((server, _), (client, _)):
        with client._lock:
            client.session.write(b"some words")
            client.session.write(b"and more")
            record = bytearray(client._outgoing.read())
        record[chance.randrange(len(record))] ^= 1 << chance.randrange(8)
        pair[1].send(record)
        pair[1].shut_down()
        found = bytearray()
        buffer = memoryview(bytearray(100))
        try:
            while count := server.receive_into(buffer):
                found += buffer[:count]
        except RemoteProtocolError:
            pass
        assert bytes(found) in (b"", b"some words")


# -- the handshake of NBD --------------------------------------------------------------------------------------------


class Exports:
    """One export, and what the server noted."""

    stopping = False

    def __init__(self):
        self.identity = None
        self.refusals = []

    def listed(self):
        return [("it", "")]

    def find(self, name):
        return Offer(ExportInfo("it", 4096, wire.TransmissionFlag.HAS_FLAGS))

    def begin(self, info):
        pass

    def authenticated(self, identity):
        self.identity = identity

    def refused(self, option, reply, message):
        self.refusals.append((option, reply))


def option(number, data=b""):
    return wire.OPTION.pack(wire.OPTION_MAGIC, number, len(data)) + data


GO = option(wire.Option.GO, struct.pack(">I2sH", 2, b"it", 0))


def hurried(steps, deadline, tls_s):
    """Take the steps of a handshake, which has so many seconds from TLS on."""
    answer = None
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, StartTls):
                deadline._end = time.monotonic() + tls_s
            answer = yield step
    except StopIteration as finished:
        return finished.value
    finally:
        steps.close()


class Client:
    """A client's raw end of a handshake that a server runs in a thread."""

    def __init__(self, both, *, tls=Tls.REQUIRE, tls_s=30.0):
        self.ours, theirs = sockets()
        self.exports = Exports()
        self.outcome = None
        self.thread = threading.Thread(target=self._serve, args=(theirs, both[0], tls, tls_s))
        self.thread.start()
        self.stream = self.ours
        receive(self.ours, wire.GREETING.size)
        self.ours.send(wire.CLIENT_FLAGS.pack(3))

    def _serve(self, stream, start, tls, tls_s):
        deadline = Deadline(60)
        steps = hurried(handshake(self.exports, tls=tls), deadline, tls_s)
        try:
            self.outcome = run(steps, stream, deadline=deadline, start_tls=start)
            stream = self.outcome[1]
        except Exception as error:  # noqa: BLE001 - an outcome like any other
            self.outcome = error
        finally:
            stream.close()

    def reply(self):
        _, number, kind, length = wire.OPTION_REPLY.unpack(receive(self.stream, wire.OPTION_REPLY.size))
        return number, kind, receive(self.stream, length)

    def end(self):
        self.stream.close()
        self.thread.join()
        return self.outcome


def test_tls_comes_first_where_it_is_required(both):
    client = Client(both)
    client.stream.send(GO)
    assert client.reply()[:2] == (wire.Option.GO, wire.ReplyType.ERR_TLS_REQD)
    client.stream.send(option(wire.Option.STARTTLS))
    assert client.reply()[:2] == (wire.Option.STARTTLS, wire.ReplyType.ACK)
    client.stream, _ = both[1](client.ours, HOST)
    client.stream.send(option(wire.Option.STARTTLS))
    assert client.reply()[:2] == (wire.Option.STARTTLS, wire.ReplyType.ERR_INVALID)
    client.stream.send(GO)
    assert client.reply()[1] == wire.ReplyType.INFO
    assert client.reply()[1] == wire.ReplyType.ACK
    session, stream = client.end()
    assert session.tls
    assert isinstance(stream, TlsStream)
    assert client.exports.identity == Identity(("alice", "alice.test"))


def test_starttls_forgets_what_was_said_in_the_clear(both):
    client = Client(both, tls=Tls.ALLOW)
    client.stream.send(option(wire.Option.STRUCTURED_REPLY))
    assert client.reply()[1] == wire.ReplyType.ACK
    client.stream.send(option(wire.Option.STARTTLS))
    assert client.reply()[1] == wire.ReplyType.ACK
    client.stream, _ = both[1](client.ours, HOST)
    client.stream.send(GO)
    assert client.reply()[1] == wire.ReplyType.INFO
    assert client.reply()[1] == wire.ReplyType.ACK
    session, _ = client.end()
    assert not session.structured


def test_plaintext_behind_starttls_never_counts(both):
    """CVE-2021-3716: an option that somebody on the way put behind STARTTLS was taken for the client's own."""
    client = Client(both)
    client.stream.send(option(wire.Option.STARTTLS) + option(wire.Option.STRUCTURED_REPLY))
    assert client.reply()[1] == wire.ReplyType.ACK
    with pytest.raises((RemoteProtocolError, ConnectionError)):
        both[1](client.ours, HOST)
    assert isinstance(client.end(), RemoteProtocolError)


def drip(sock, data, stop):
    for byte in data:
        if stop.wait(0.02):
            return
        try:
            sock.send(bytes([byte]))
        except OSError:
            return


@pytest.mark.parametrize("dripping", [False, True])
def test_a_client_that_stalls_within_the_handshake_is_dropped(both, dripping):
    client = Client(both, tls_s=0.3)
    client.stream.send(option(wire.Option.STARTTLS))
    client.reply()
    stop = threading.Event()
    # The head of a record of 16 KiB: at this pace it would take minutes.
    slow = threading.Thread(
        target=drip, args=(client.ours, b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(9999), stop)
    )
    if dripping:
        slow.start()
    client.thread.join()
    stop.set()
    if dripping:
        slow.join()
    assert isinstance(client.end(), TimeoutError)


def test_a_socket_stream_remembers_its_timeout():
    first, second = socket.socketpair()
    with closing(SocketStream(first)) as stream, second:
        assert stream.timeout_s is None
        stream.set_timeout(2.0, 1.0)
        assert stream.timeout_s == 2.0
