"""How a server of Temporal is reached, as options and the environment say; all that is wrong is told at once."""

import re
from pathlib import Path

import pytest

from blockwright.errors import UsageError
from blockwright.pipeline.temporal.server import MAX_API_KEY, MAX_PEM, Given, Server, Tls, server_of
from tests.support.certificates import Authority

ADDRESS = "temporal.example:7233"
HERE = Given(address=ADDRESS)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "ca")


@pytest.fixture(scope="module")
def pair(authority) -> tuple[Path, Path]:
    return authority.issue("us", server=False)


def test_in_the_clear_where_nothing_else_is_said():
    assert server_of(HERE, {}) == Server(ADDRESS)
    environ = {"TEMPORAL_ADDRESS": "[::1]:7233", "TEMPORAL_NAMESPACE": "n"}
    assert server_of(Given(), environ) == Server("[::1]:7233", "n")
    assert server_of(Given(ADDRESS, "mine"), environ) == Server(ADDRESS, "mine")
    empty = dict.fromkeys(("TEMPORAL_NAMESPACE", "TEMPORAL_TLS", "TEMPORAL_API_KEY", "TEMPORAL_TLS_SERVER_NAME"), "")
    assert server_of(HERE, empty) == Server(ADDRESS)


@pytest.mark.parametrize("said", ["true", "TRUE", "1"])
def test_tls_from_an_option_or_the_environment(said):
    assert server_of(Given(ADDRESS, tls=True), {}).tls == Tls()
    assert server_of(HERE, {"TEMPORAL_TLS": said}).tls == Tls()
    assert server_of(Given(ADDRESS, tls=True), {"TEMPORAL_TLS": "false"}).tls == Tls()
    assert server_of(HERE, {"TEMPORAL_TLS": "false"}).tls is None


def test_certificates_from_options_and_the_environment(authority, pair):
    certificate, key = map(str, pair)
    ca = str(authority.certificate)
    expected = Tls(authority.certificate.read_bytes(), pair[0].read_bytes(), pair[1].read_bytes(), "inner.example")
    options = Given(ADDRESS, None, True, ca, certificate, key, "inner.example")
    variables = {
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": ca,
        "TEMPORAL_TLS_CLIENT_CERT_PATH": certificate,
        "TEMPORAL_TLS_CLIENT_KEY_PATH": key,
        "TEMPORAL_TLS_SERVER_NAME": "inner.example",
    }
    assert server_of(options, {}).tls == expected
    assert server_of(HERE, variables).tls == expected  # as Temporal's own tools have it
    assert server_of(options, dict.fromkeys(variables, "/nowhere")).tls == expected
    assert server_of(HERE, {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ca}).tls == Tls(expected.authority)


def test_an_api_key_implies_tls_and_is_never_shown(tmp_path):
    file = tmp_path / "key"
    file.write_text("sesame\n")
    for found in (
        server_of(HERE, {"TEMPORAL_API_KEY": "sesame"}),
        server_of(Given(ADDRESS, api_key_file=str(file)), {"TEMPORAL_API_KEY": "other"}),
    ):
        assert found == Server(ADDRESS, tls=Tls(), api_key="sesame")
        assert "sesame" not in repr(found)
    assert "PRIVATE" not in repr(Tls(key=b"PRIVATE"))


def test_what_does_not_go_together(authority, pair):
    ca, certificate, key = (str(each) for each in (authority.certificate, *pair))
    for given, environ, words in (
        (Given(), {}, "expected an address"),
        (Given("http://x:1"), {}, "--temporal: expected HOST:PORT"),
        (Given("x"), {}, "--temporal: expected HOST:PORT"),
        (Given(), {"TEMPORAL_ADDRESS": "x y:1"}, "TEMPORAL_ADDRESS: expected HOST:PORT"),
        (HERE, {"TEMPORAL_TLS": "perhaps"}, "TEMPORAL_TLS: expected true or false"),
        (Given(ADDRESS, authority=ca), {}, "--temporal-tls-ca: is about TLS: expected --temporal-tls with it"),
        (Given(ADDRESS, name="n"), {}, "--temporal-tls-server-name: is about TLS"),
        (
            HERE,
            {"TEMPORAL_TLS": "false", "TEMPORAL_TLS_SERVER_CA_CERT_PATH": ca},
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH: is about TLS: expected TEMPORAL_TLS=true",
        ),
        (HERE, {"TEMPORAL_TLS": "false", "TEMPORAL_API_KEY": "sesame"}, "an API key is not sent in the clear"),
        (Given(ADDRESS, tls=True, certificate=certificate), {}, "expected both, found --temporal-tls-cert alone"),
        (Given(ADDRESS, tls=True), {"TEMPORAL_TLS_CLIENT_KEY_PATH": key}, "found TEMPORAL_TLS_CLIENT_KEY_PATH alone"),
        (Given(ADDRESS, tls=True, name="a b"), {}, "expected the name in a certificate"),
        (HERE, {"TEMPORAL_TLS_SERVER_CA_CERT_DATA": "x"}, "expected TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        (HERE, {"TEMPORAL_TLS_DISABLE_HOST_VERIFICATION": "true"}, "is not taken"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            server_of(given, environ)
    assert server_of(HERE, {"TEMPORAL_TLS_DISABLE_HOST_VERIFICATION": "false"}) == Server(ADDRESS)


def test_files_that_cannot_be_used(authority, pair, tmp_path):
    certificate, key = map(str, pair)
    other = str(authority.issue("other", server=False)[1])
    junk, large, locked = tmp_path / "junk", tmp_path / "large", tmp_path / "locked"
    junk.write_bytes(b"\xffjunk")
    large.write_bytes(bytes(MAX_PEM + 1))
    locked.write_text(
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,"
        "000102030405060708090A0B0C0D0E0F\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END EC PRIVATE KEY-----\n"
    )
    for given, words in (
        (Given(authority=f"{tmp_path}/none"), "--temporal-tls-ca: .*none: no such file"),
        (Given(authority=str(tmp_path)), "--temporal-tls-ca: .*: is a directory"),
        (Given(authority="/dev/null"), "--temporal-tls-ca: /dev/null: expected a file"),
        (Given(authority=str(large)), f"expected at most {MAX_PEM} bytes"),
        (Given(authority=str(junk)), "junk: expected certificates in PEM"),
        (Given(authority=key), "expected certificates in PEM"),
        (Given(certificate=certificate, key=f"{tmp_path}/none"), "--temporal-tls-key: .*none: no such file"),
        (Given(certificate=str(junk), key=key), "expected a certificate and its key in PEM"),
        (Given(certificate=certificate, key=str(junk)), "expected a certificate and its key in PEM"),
        (Given(certificate=certificate, key=other), "--temporal-tls-key: .*: is not the key of"),
        (Given(certificate=certificate, key=str(locked)), "--temporal-tls-key: .*: is encrypted"),
    ):
        asked = Given(ADDRESS, tls=True, authority=given.authority, certificate=given.certificate, key=given.key)
        with pytest.raises(UsageError, match=words):
            server_of(asked, {})


@pytest.mark.parametrize("secret", [b"", b"two words", b"caf\xc3\xa9", b"x" * (MAX_API_KEY + 1), b"a\nb"])
def test_keys_that_are_none_are_not_told(tmp_path, secret):
    file = tmp_path / "key"
    file.write_bytes(secret)
    with pytest.raises(UsageError, match="--temporal-api-key-file") as found:
        server_of(Given(ADDRESS, api_key_file=str(file)), {})
    if secret:
        assert secret.decode()[:3] not in str(found.value).replace(str(file), "")
        with pytest.raises(UsageError, match="TEMPORAL_API_KEY"):
            server_of(HERE, {"TEMPORAL_API_KEY": secret.decode()})
    with pytest.raises(UsageError, match="no such file"):
        server_of(Given(ADDRESS, api_key_file=str(tmp_path / "none")), {})
