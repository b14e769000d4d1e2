"""Addresses of exports: every part as doc/uri.md has it, every byte kept, and what is no address refused by name."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import UsageError
from blockwright.nbd.uri import NbdUri, is_nbd_uri, parse_uri


def test_each_kind_of_address():
    assert parse_uri("nbd://host") == NbdUri("tcp", host="host")
    assert parse_uri("nbds://user@host:1234/a/b") == NbdUri(
        "tcp", "a/b", tls=True, host="host", port=1234, username="user"
    )
    assert parse_uri("nbd://[::1]:5/") == NbdUri("tcp", host="::1", port=5)
    assert parse_uri("nbd://[fe80::1%25eth0]/").host == "fe80::1%eth0"
    assert parse_uri("nbd+unix:///name?socket=/run/s") == NbdUri("unix", "name", path="/run/s")
    assert parse_uri("nbds+vsock://2:7/x") == NbdUri("vsock", "x", tls=True, host="2", port=7)
    options = "tls-type=psk&tls-username=u&tls-psk-file=f&tls-hostname=h&tls-verify-peer=false&tls-certificates=c"
    assert parse_uri(f"nbds://x/?{options}") == NbdUri(
        "tcp",
        tls=True,
        host="x",
        tls_type="psk",
        tls_hostname="h",
        verify_peer=False,
        certificates="c",
        username="u",
        psk_file="f",
    )


def test_every_byte_of_a_path_is_kept():
    assert parse_uri("nbd+unix:///?socket=a+b c%20d").path == "a+b c d"
    assert os.fsencode(parse_uri("nbd+unix:///?socket=%ff").path) == b"\xff"
    assert os.fsencode(parse_uri(os.fsdecode(b"nbd+unix:///?socket=\xff")).path) == b"\xff"
    assert str(NbdUri("unix", path=os.fsdecode(b"/\xff+&?=#\n"))) == "nbd+unix:///?socket=/%FF%2B%26%3F%3D%23%0A"


@given(st.binary(min_size=1).filter(lambda path: 0 not in path), st.text().filter(lambda name: "\0" not in name))
def test_what_is_written_is_read(path, name):
    uri = NbdUri("unix", name[:1000], path=os.fsdecode(path))
    assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("http://x/", "one of nbd://"),
        ("nbd:/x", "one of nbd://"),
        ("nbd:///x", "a host"),
        ("nbd://.../", "a host"),
        (f"nbd://{'a' * 300}/", "a host"),
        ("nbd://a%00b/", "a host"),
        ("nbd://\udcff/", "a host"),
        ("nbd://x:99999/", "no address"),
        ("nbd://x:-1/", "no address"),
        ("nbd://[::1/", "no address"),
        ("nbd://x/a\nb", "ends of lines"),
        ("nbd://x/a\tb", "ends of lines"),
        ("nbd://x/%ff", "UTF-8"),
        ("nbd://x/a%00", "without NUL"),
        (f"nbd://x/{'a' * 4097}", "at most 4096 bytes"),
        ("nbd+unix:///x", "and a socket"),
        ("nbd+unix:///x?socket=", "and a socket"),
        ("nbd+unix://host/x?socket=s", "no host"),
        ("nbd+unix:///x?socket=a%00", "without a NUL"),
        ("nbd://x/?socket=s", r"goes with nbd\+unix"),
        ("nbd+vsock://x/", "a context id"),
        ("nbd+vsock://4294967296/", "a context id"),
        ("nbd+vsock://٣/", "a context id"),
        (f"nbd+vsock://{'9' * 5000}/", "a context id"),
        ("nbd://x/?foo=1", "found the key 'foo'"),
        ("nbds://x/?tls-type=psk&tls-type=x509", "twice"),
        ("nbds://x/?tls-type=none", "tls-type"),
        ("nbds://x/?tls-verify-peer=maybe", "tls-verify-peer"),
    ],
)
def test_what_is_no_address_is_refused(text, wrong):
    with pytest.raises(UsageError, match=wrong):
        parse_uri(text)


@given(st.text(), st.sampled_from(["", "nbd://", "nbds://h/", "nbd+unix:///?socket=", "nbd+vsock://1/?"]))
def test_any_text_is_an_address_or_refused(text, start):
    assert is_nbd_uri(start + "x") == bool(start)
    try:
        uri = parse_uri(start + text)
    except UsageError:
        return
    assert parse_uri(str(uri)).export == uri.export
