import base64
import json
import os

import pytest

from blockwright.errors import Refused
from blockwright.oci.credentials import Challenge, Credentials, find_credentials, parse_challenge

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(document):
        (tmp_path / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))
        return tmp_path

    return write


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def test_challenges():
    header = 'Bearer realm="https://auth.example/token?a=b",service="a, b",scope="repository:x:pull",error="x\\"y"'
    assert parse_challenge(header) == Challenge(
        "bearer",
        {
            "realm": "https://auth.example/token?a=b",
            "service": "a, b",
            "scope": "repository:x:pull",
            "error": 'x"y',
        },
    )
    assert parse_challenge("BASIC realm=plain") == Challenge("basic", {"realm": "plain"})
    assert parse_challenge("Negotiate abc") is None
    assert parse_challenge("") is None
    assert parse_challenge("Bearer " + 'a="' * 5000) is not None


def test_nothing_is_known_without_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    assert find_credentials("host") is None


def test_what_the_configuration_has(config):
    config(
        {
            "auths": {
                "one": {"auth": encoded("me:a:b")},
                "https://two": {"username": "you", "password": "p"},
                "three": {"identitytoken": "T"},
                "four": {},
            }
        }
    )
    assert find_credentials("one") == Credentials("me", "a:b")
    assert find_credentials("two") == Credentials("you", "p")
    assert find_credentials("three") == Credentials("", "T")
    assert find_credentials("four") is None
    assert find_credentials("five") is None
    assert "a:b" not in repr(find_credentials("one"))


def test_podman_s_file_counts_before_docker_s(config, tmp_path, monkeypatch):
    config({"auths": {"one": {"auth": encoded("docker:a")}, "two": {"auth": encoded("docker:b")}}})
    for folder, entries in {
        "runtime/containers": {"one": "run:a", "one/team": "run:b", "one/team/app": "run:c"},
        "xdg/containers": {"one": "home:a", "three": "home:b"},
        "alone": {"one": "alone:a"},
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        document = {"auths": {key: {"auth": encoded(text)} for key, text in entries.items()}}
        (tmp_path / folder / "auth.json").write_text(json.dumps(document))
    for host, name, user, secret in (
        ("one", "", "run", "a"),
        ("one", "other/app", "run", "a"),
        ("one", "team/more", "run", "b"),
        ("one", "team/app", "run", "c"),
        ("one", "teams", "run", "a"),
        ("two", "team/app", "docker", "b"),
        ("three", "x", "home", "b"),
    ):
        assert find_credentials(host, name) == Credentials(user, secret)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "alone/auth.json"))
    assert find_credentials("one", "team/app") == Credentials("alone", "a")
    assert find_credentials("two") is None


@pytest.mark.parametrize("document", ["[]", "{", "x" * 2_000_000, {"auths": {"one": {"auth": "***"}}}])
def test_a_configuration_that_does_not_hold(config, document):
    config(document)
    with pytest.raises(Refused, match=r"config\.json"):
        find_credentials("one")


def helper(folder, name, script):
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_helpers_are_asked_and_their_no_is_final(config):
    folder = config({"credHelpers": {"one": "mine"}, "credsStore": "all", "auths": {"one": {"auth": encoded("a:b")}}})
    helper(folder, "mine", 'read host; echo "{\\"Username\\":\\"u-$host\\",\\"Secret\\":\\"s\\"}"')
    helper(folder, "all", 'echo "credentials not found in native keychain"; exit 1')
    assert find_credentials("one") == Credentials("u-one", "s")
    assert find_credentials("two") is None
    helper(folder, "mine", 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"t\\"}"')
    assert find_credentials("one") == Credentials("", "t")


@pytest.mark.parametrize(
    ("script", "reason"), [("exit 3", "exit code 3"), ("echo secret-text", "expected JSON"), (None, "not installed")]
)
def test_helpers_that_fail_are_named_and_not_quoted(config, script, reason):
    folder = config({"credsStore": "bad"})
    if script is not None:
        helper(folder, "bad", script)
    with pytest.raises(Refused, match=f"docker-credential-bad.*{reason}") as error:
        find_credentials("one")
    assert "secret-text" not in str(error.value)


def test_a_helper_is_a_name_and_no_path(config):
    config({"credsStore": "../../bin/sh"})
    with pytest.raises(Refused, match="expected a name"):
        find_credentials("one")
