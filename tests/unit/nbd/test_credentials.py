import random
import ssl
from contextlib import closing, suppress

import pytest

from blockwright.errors import (
    BlockwrightError,
    Corrupt,
    FormatError,
    LimitExceeded,
    NotFound,
    NotSupported,
    NotTrusted,
    RemoteProtocolError,
    UsageError,
)
from blockwright.nbd.credentials import MAX_PSK_FILE, client_credentials, parse_keys, server_credentials
from blockwright.nbd.protocol.steps import Identity
from blockwright.nbd.tls import client_start_tls, server_start_tls
from blockwright.nbd.uri import parse_uri
from tests.support.certificates import Authority, folder
from tests.support.tlspair import begin, joined
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
KEYS = b"alice:" + b"ab" * 32 + b"\nbob:" + b"cd" * 32 + b"\n"

needs_psk = pytest.mark.skipif(not getattr(ssl, "HAS_PSK", False), reason="this Python's ssl has no shared keys")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    base = tmp_path_factory.mktemp("tls")
    authority = Authority(base / "authority")
    return folder(
        base / "good",
        authority,
        server=authority.issue("s", server=True, hosts=["server.test"]),
        client=authority.issue("c", server=False),
    )


def copied(good, path):
    path.mkdir()
    for each in good.iterdir():
        (path / each.name).write_bytes(each.read_bytes())
    return path


# -- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
def test_a_servers_files_are_named_where_they_are_missing_or_broken(good, tmp_path, name):
    path = copied(good, tmp_path / "x")
    (path / name).unlink()
    with pytest.raises(NotFound, match=name):
        server_start_tls(path, verify_clients=True)
    (path / name).write_text("no certificate\n")
    with pytest.raises(Corrupt, match=r"x/(server-cert|ca-cert)\.pem: expected [^[(]*$"):
        server_start_tls(path, verify_clients=True)


def test_a_key_of_another_certificate_is_refused(good, tmp_path):
    path = copied(good, tmp_path / "x")
    (path / "server-key.pem").write_bytes((path / "client-key.pem").read_bytes())
    with pytest.raises(Corrupt, match="key values mismatch"):
        server_start_tls(path)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(good, tmp_path):
    path = copied(good, tmp_path / "x")
    key = path / "server-key.pem"
    run([tool("certtool"), "--to-p8", "--load-privkey", key, "--password", "secret", "--outfile", path / "new"])
    key.write_bytes((path / "new").read_bytes())
    with pytest.raises(NotSupported, match="encrypted"):
        server_start_tls(path)


def test_a_broken_list_of_revoked_is_not_passed_over(good, tmp_path):
    path = copied(good, tmp_path / "x")
    (path / "ca-crl.pem").write_text("nothing\n")
    with pytest.raises(Corrupt, match=r"ca-crl\.pem"):
        server_start_tls(path, verify_clients=True)


def test_settings_that_make_no_sense_are_refused(good, tmp_path):
    with pytest.raises(UsageError, match="found neither"):
        server_start_tls()
    with pytest.raises(UsageError, match="found both"):
        server_start_tls(good, psk_file=tmp_path / "keys")
    with pytest.raises(UsageError, match="needs a directory"):
        server_start_tls(psk_file=tmp_path / "keys", verify_clients=True)


def test_anonymous_is_refused_by_name():
    with pytest.raises(NotSupported, match="tls-type=anon"):
        client_start_tls(parse_uri("nbds://h/?tls-type=anon"))


def test_a_client_verifies_unless_told_otherwise(good):
    context = client_credentials(parse_uri(f"nbds://h/?tls-certificates={good}")).context
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    context = client_credentials(parse_uri(f"nbds://h/?tls-certificates={good}&tls-verify-peer=0")).context
    assert context.verify_mode is ssl.CERT_NONE


def test_a_server_takes_nothing_older_than_tls_1_2(good):
    context = server_credentials(good, verify_clients=False, psk_file=None).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_client_looks_where_libnbd_does(good, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert client_credentials(parse_uri("nbds://h/")).context.verify_mode is ssl.CERT_REQUIRED
    (tmp_path / ".pki").mkdir()
    copied(good, tmp_path / ".pki" / "libnbd")
    with joined(server_start_tls(good, verify_clients=True), client_start_tls(parse_uri("nbds://h/")), "server.test"):
        pass


# -- shared keys -----------------------------------------------------------------------------------------------------


def test_keys_are_parsed():
    assert parse_keys(KEYS, "f") == {"alice": b"\xab" * 32, "bob": b"\xcd" * 32}
    assert parse_keys(b"\n a:b:AB \r\n", "f") == {"a:b": b"\xab"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"alice",
        b"alice:",
        b":ab",
        b"alice:abc",
        b"alice:xyz0",
        b"a\0b:ab",
        b"\xff:ab",
        b"alice:ab\nalice:cd",
        b"alice:" + b"ab" * 257,
    ],
)
def test_what_is_no_key_is_refused_and_not_shown(data):
    with pytest.raises(Corrupt) as caught:
        parse_keys(data, "keys")
    assert "ab" not in str(caught.value).replace("alice", "")


def test_a_file_of_keys_is_bounded():
    with pytest.raises(LimitExceeded):
        parse_keys(KEYS * MAX_PSK_FILE, "keys")


@pytest.mark.parametrize("seed", range(50))
def test_any_bytes_are_keys_or_a_format_error(seed):
    chance = random.Random(seed)
    data = bytearray(KEYS)
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with suppress(FormatError):
        assert parse_keys(bytes(data), "keys")


@pytest.mark.skipif(getattr(ssl, "HAS_PSK", False), reason="this Python's ssl has shared keys")
def test_without_shared_keys_in_python_it_says_so(tmp_path):
    with pytest.raises(NotSupported, match=r"Python 3\.13"):
        server_start_tls(psk_file=tmp_path / "keys")
    with pytest.raises(NotSupported, match=r"Python 3\.13"):
        client_start_tls(parse_uri(f"nbds://alice@h/?tls-type=psk&tls-psk-file={tmp_path}/keys"))


def by_key(path, user="alice"):
    return client_start_tls(parse_uri(f"nbds://{user}@h/?tls-type=psk&tls-psk-file={path}"))


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(KEYS)
    return path


@needs_psk
def test_who_knows_the_key_is_known_by_name(keys):
    with joined(server_start_tls(psk_file=keys), by_key(keys), "h") as ((_, identity), (_, other)):
        assert identity == Identity(psk="alice")
        assert other == Identity()


@needs_psk
@pytest.mark.parametrize("line", [b"alice:" + b"00" * 32, b"carol:" + b"ab" * 32])
def test_who_does_not_know_the_key_is_refused(keys, tmp_path, line):
    wrong = tmp_path / "wrong"
    wrong.write_bytes(line)
    outcomes = begin(server_start_tls(psk_file=keys), by_key(wrong, line.partition(b":")[0].decode()), "h")
    assert isinstance(outcomes[0], NotTrusted)
    assert isinstance(outcomes[1], RemoteProtocolError)


@needs_psk
def test_a_server_with_a_certificate_instead_of_the_key_is_refused(good, keys):
    outcomes = begin(server_start_tls(good), by_key(keys), "server.test")
    assert isinstance(outcomes[1], NotTrusted)


@needs_psk
def test_a_client_without_a_key_is_refused(good, keys):
    address = parse_uri(f"nbds://server.test/?tls-certificates={good}")
    outcomes = begin(server_start_tls(psk_file=keys), client_start_tls(address), "server.test")
    assert isinstance(outcomes[0], RemoteProtocolError)
    assert isinstance(outcomes[1], RemoteProtocolError)


@needs_psk
def test_one_connections_user_is_not_anothers(keys):
    server = server_start_tls(psk_file=keys)
    for user in ("alice", "bob", "alice"):
        with joined(server, by_key(keys, user), "h") as ((_, identity), _):
            assert identity.psk == user


@needs_psk
def test_a_clients_key_must_be_there(keys, tmp_path):
    for address, kind in (
        (f"nbds://h/?tls-type=psk&tls-psk-file={keys}", UsageError),
        ("nbds://alice@h/?tls-type=psk", UsageError),
        (f"nbds://carol@h/?tls-type=psk&tls-psk-file={keys}", NotFound),
        (f"nbds://alice@h/?tls-type=psk&tls-psk-file={tmp_path}/none", NotFound),
    ):
        with pytest.raises(kind) as caught:
            client_start_tls(parse_uri(address))
        assert isinstance(caught.value, BlockwrightError)


def test_many_handshakes_at_once_share_the_credentials(good):
    server = server_start_tls(good, verify_clients=True)
    client = client_start_tls(parse_uri(f"nbds://server.test/?tls-certificates={good}"))
    for _ in range(5):
        (one, identity), (other, _) = begin(server, client, "server.test")
        with closing(one), closing(other):
            assert identity.names == ("c",)
