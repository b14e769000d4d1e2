import os
import socket
import stat
import sys
import tempfile
import threading

import pytest

from blockwright.errors import InUse, NotSupported, UsageError
from blockwright.nbd.server import listeners
from blockwright.nbd.server.listeners import inherited, listen_tcp, listen_unix, listen_vsock, parse_host_port


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost:1", ("localhost", 1)),
        ("[::1]:10809", ("::1", 10809)),
        (":7", ("", 7)),
        ("*:7", ("", 7)),
        ("7", ("", 7)),
        ("localhost", ("localhost", 10809)),
        ("192.0.2.1:0", ("192.0.2.1", 0)),
    ],
)
def test_hosts_and_ports_are_read(text, found):
    assert parse_host_port(text) == found


@pytest.mark.parametrize(
    "text", ["", "::1", "::1:7", "host:", "host:x", "host:65536", "[::1]", "a:1:2", "host:-1", "h:٣"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError):
        parse_host_port(text)


def reach(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(address)


def test_everywhere_is_both_families_on_one_socket():
    (made,) = listen_tcp("", 0)
    try:
        port = made.uri.port
        assert str(made.uri) == f"nbd://localhost:{port}/"
        reach(socket.AF_INET, ("127.0.0.1", port))
        if socket.has_dualstack_ipv6():
            reach(socket.AF_INET6, ("::1", port))
    finally:
        made.close()


def test_a_host_is_that_host_alone():
    (made,) = listen_tcp("127.0.0.1", 0)
    try:
        assert made.socket.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InUse, match="is in use"):
            listen_tcp("127.0.0.1", made.uri.port)
    finally:
        made.close()


def test_all_addresses_of_a_name_share_the_port():
    made = listen_tcp("localhost", 0)
    try:
        assert len({each.uri.port for each in made}) == 1
        assert len({each.socket.family for each in made}) == len(made)
    finally:
        for each in made:
            each.close()


@pytest.fixture
def two_addresses(monkeypatch):
    """A name that has two addresses of this machine, and before them one that is another's."""

    def found(host, port, **_more):
        addresses = ["192.0.2.1", "127.0.0.1", "127.0.0.2"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(listeners.socket, "getaddrinfo", found)
    if not sys.platform.startswith("linux"):
        pytest.skip("127.0.0.2 is an address on Linux alone")


def test_a_free_port_is_the_same_on_each_address_of_a_name(two_addresses):
    made = listen_tcp("name", 0)
    try:
        assert [each.socket.getsockname() for each in made] == [
            (address, made[0].uri.port) for address in ("127.0.0.1", "127.0.0.2")
        ]
        assert {str(each.uri) for each in made} == {f"nbd://name:{made[0].uri.port}/"}
    finally:
        for each in made:
            each.close()


def test_a_port_that_is_free_on_one_address_alone_is_not_taken(two_addresses, monkeypatch):
    bind, others, made = listeners._bind_tcp, [], []

    def bind_and_lose(family, address, host):
        made = bind(family, address, host)
        if not address[1] and len(others) < 3:  # somebody has the port on the other address by now
            others.extend(listen_tcp_at("127.0.0.2", made.uri.port))
        return made

    monkeypatch.setattr(listeners, "_bind_tcp", bind_and_lose)
    try:
        made += listen_tcp("name", 0)
        assert len(others) == 3
        assert [each.socket.getsockname()[0] for each in made] == ["127.0.0.1", "127.0.0.2"]
        assert len({each.uri.port for each in made}) == 1
    finally:
        for each in (*made, *others):
            each.close()


def test_where_one_address_of_a_name_is_taken_the_others_are_left(two_addresses, monkeypatch):
    bind, bound = listeners._bind_tcp, []

    def note(family, address, host):
        bound.append(bind(family, address, host))
        return bound[-1]

    monkeypatch.setattr(listeners, "_bind_tcp", note)
    for made in listen_tcp("name", 0):  # a port that is free on both
        made.close()
    port = made.uri.port
    (taken,) = listen_tcp_at("127.0.0.2", port)
    with taken:
        del bound[:]
        with pytest.raises(InUse, match=f"name:{port}: is in use"):
            listen_tcp("name", port)
        (left,) = bound
        assert (left.uri.port, left.socket.fileno()) == (port, -1), "nobody listens there any more"


def listen_tcp_at(address, port):
    """Listen without our own code, and without asking for a name."""
    sock = socket.socket()
    sock.bind((address, port))
    sock.listen()
    return (sock,)


def test_without_ipv6_everywhere_is_ipv4(monkeypatch):
    monkeypatch.setattr(listeners.socket, "has_dualstack_ipv6", lambda: False)
    (made,) = listen_tcp("", 0)
    try:
        assert made.socket.getsockname() == ("0.0.0.0", made.uri.port)
        reach(socket.AF_INET, ("127.0.0.1", made.uri.port))
    finally:
        made.close()


def test_a_host_without_address_is_refused():
    with pytest.raises(UsageError, match="has no address"):
        listen_tcp("no-such-host.invalid", 0)


def test_an_address_of_another_machine_is_told():
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        listen_tcp("192.0.2.1", 0)


def test_a_socket_file_has_its_mode_and_is_removed(tmp_path):
    path = str(tmp_path / "nbd.sock")
    made = listen_unix(path, mode=0o620)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620
    reach(socket.AF_UNIX, path)
    made.close()
    made.close()
    assert os.listdir(tmp_path) == []


def test_a_socket_file_that_came_to_nothing_is_removed(tmp_path, monkeypatch):
    def refused(path, mode):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    with pytest.raises(PermissionError):
        listen_unix(str(tmp_path / "nbd.sock"), mode=0o620)
    assert os.listdir(tmp_path) == []


def test_a_dead_server_s_socket_is_replaced(tmp_path):
    path = str(tmp_path / "nbd.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    made = listen_unix(path)
    reach(socket.AF_UNIX, path)
    made.close()


def test_a_living_server_s_socket_is_left_alone(tmp_path):
    path = str(tmp_path / "nbd.sock")
    first = listen_unix(path)
    try:
        with pytest.raises(InUse, match=r"nbd\.sock: is in use"):
            listen_unix(path)
        reach(socket.AF_UNIX, path)
    finally:
        first.close()


def test_a_server_whose_backlog_is_full_lives(tmp_path):
    path = str(tmp_path / "nbd.sock")
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as client:
        full.bind(path)
        full.listen(0)
        client.connect(path)
        with pytest.raises(InUse):
            listen_unix(path)


def test_of_many_that_start_at_once_one_wins(tmp_path):
    path = str(tmp_path / "nbd.sock")
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        made, lost = [], []
        start = threading.Barrier(4)

        def attempt(start=start, made=made, lost=lost):
            start.wait()
            try:
                made.append(listen_unix(path))
            except InUse:
                lost.append(1)

        threads = [threading.Thread(target=attempt) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert (len(made), len(lost)) == (1, 3)
        reach(socket.AF_UNIX, path)
        made[0].close()


def test_a_directory_that_may_be_entered_and_not_read_is_enough():
    """What two servers lock there cannot be opened; one that is alone does without."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o300)
        root = not os.geteuid()
        if root:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            with pytest.raises(PermissionError):
                os.listdir(folder)
            made = listen_unix(f"{folder}/s")
            reach(socket.AF_UNIX, f"{folder}/s")
            made.close()
            assert not os.path.exists(f"{folder}/s")
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o700)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(UsageError, match="something else"):
        listen_unix(str(path))
    assert path.read_text() == "data"


def test_another_s_socket_in_our_place_is_not_removed(tmp_path):
    path = str(tmp_path / "nbd.sock")
    first = listen_unix(path)
    os.unlink(path)
    second = listen_unix(path)
    first.close()
    assert os.path.exists(path)
    second.close()


def test_bad_paths_are_errors_of_one_line(tmp_path):
    with pytest.raises(UsageError, match="path"):
        listen_unix(str(tmp_path / ("x" * 200)))
    for path in ("", "a\0b", "\0abstract"):
        with pytest.raises(UsageError):
            listen_unix(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        listen_unix(str(tmp_path / "missing" / "nbd.sock"))


def test_vsock_listens_or_says_why_not():
    with pytest.raises(UsageError):
        listen_vsock(1 << 32)
    try:
        made = listen_vsock(0xFFFFFFFF)
    except NotSupported as error:
        assert "vsock" in str(error)  # noqa: PT017 - both outcomes are right, by kernel
    else:
        assert str(made.uri).startswith("nbd+vsock://")
        made.close()


def test_a_vsock_port_that_is_taken_is_in_use_and_one_that_is_inherited_has_an_address():
    try:
        made = listen_vsock(0xFFFFFFFF)
    except NotSupported:
        pytest.skip("this kernel has no vsock")
    try:
        assert listeners.uri_of(made.socket) == made.uri
        with pytest.raises(InUse, match=f"vsock:{made.uri.port}: is in use"):
            listen_vsock(made.uri.port)
    finally:
        made.close()


# -- socket activation -------------------------------------------------------------------------------------------


def activated(monkeypatch, *sockets, **more):
    """The environment of a process that got these sockets, from a descriptor on that is free for them."""
    first = 200
    monkeypatch.setattr(listeners, "FIRST_INHERITED", first)
    for number, sock in enumerate(sockets):
        os.dup2(sock.fileno(), first + number)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets)), **more}


def test_listening_and_connected_sockets_are_inherited(monkeypatch, tmp_path):
    path = str(tmp_path / "s")
    ours, theirs = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp, ours, theirs:
        unix.bind(path)
        unix.listen()
        environment = activated(monkeypatch, unix, ours, tcp, LISTEN_FDNAMES="disk::net", OTHER="stays")
        found = inherited(environment)
        assert environment == {"OTHER": "stays"}
        assert found is not None
        assert [each.name for each in found.listeners] == ["disk", "net"]
        assert [str(each.uri) for each in found.listeners] == [
            f"nbd+unix:///?socket={path}",
            f"nbd://127.0.0.1:{tcp.getsockname()[1]}/",
        ]
        assert [each.family for each in found.connected] == [socket.AF_UNIX]
        assert not any(os.get_inheritable(each.socket.fileno()) for each in found.listeners)
        for each in (*found.listeners, *found.connected):
            each.close()
    assert os.path.exists(path)  # it is not ours


def test_what_is_meant_for_another_process_is_not_taken():
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert inherited(environment) is None
    assert environment == {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert inherited({}) is None
    assert inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) is None


@pytest.mark.parametrize("count", ["", "x", "-1", "65", "99999999999999999999", "000000000999", "٣"])
def test_a_bad_count_is_refused(count):
    with pytest.raises(UsageError, match="LISTEN_FDS"):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_what_is_no_stream_socket_is_refused(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb"):
        with pytest.raises(UsageError, match="expected a socket"):
            inherited(activated(monkeypatch, pipe))
        os.close(200)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(UsageError, match="stream"):
            inherited(activated(monkeypatch, datagrams))
        os.close(200)
    with pytest.raises(UsageError, match="descriptor 200"):
        inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
