"""Images out of Debian's registry, put there by skopeo and made by umoci, with and without a password."""

import base64
import json
import socket
import subprocess
import time

import pytest

from tests.support.command import blockwright
from tests.support.ports import free_port
from tests.support.tools import run, tool


@pytest.fixture
def registry(tmp_path, request):
    """A registry's address. With the parameter ``password`` it asks for one."""
    host = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": host},
    }
    if getattr(request, "param", None) == "password":
        # The user me, the password secret: bcrypt, as htpasswd -B has it.
        (tmp_path / "htpasswd").write_text("me:$2y$05$" + _BCRYPT + "\n")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    (tmp_path / "registry.json").write_text(json.dumps(config))
    server = subprocess.Popen(
        [tool("docker-registry"), "serve", tmp_path / "registry.json"], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(host.rpartition(":")[2]))) == 0:
                    break
            assert server.poll() is None, "the registry ended"
            time.sleep(0.1)
        yield host
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def layout(tmp_path):
    """An OCI layout with the image ``one`` of three layers."""
    where = tmp_path / "layout"
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/motd").write_text("hello\n")
    (tmp_path / "root/old").write_text("goes\n")
    (tmp_path / "more").write_bytes(bytes(range(256)) * 4000)
    run(["umoci", "init", "--layout", where])
    run(["umoci", "new", "--image", f"{where}:one"])
    run(["umoci", "insert", "--image", f"{where}:one", tmp_path / "root", "/"])
    run(["umoci", "insert", "--image", f"{where}:one", tmp_path / "more", "/etc/more"])
    run(["umoci", "insert", "--image", f"{where}:one", "--whiteout", "/old"])
    return where


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def push(layout, host, *options):
    run(
        [
            "skopeo",
            "copy",
            "-q",
            *options,
            "--dest-tls-verify=false",
            f"oci:{layout}:one",
            f"docker://{host}/team/app:1",
        ]
    )


@pytest.mark.parametrize("options", [(), ("--dest-compress-format", "zstd", "--dest-compress"), ("--format", "v2s2")])
def test_an_image_in_a_registry_is_what_it_is_on_disk(registry, layout, tmp_path, options):
    push(layout, registry, *options)
    blockwright("build", f"docker://{registry}/team/app:1", "-o", tmp_path / "pulled.img", "--seed", "x")
    blockwright("build", layout, "-o", tmp_path / "local.img", "--seed", "x")
    assert (tmp_path / "pulled.img").read_bytes() == (tmp_path / "local.img").read_bytes()
    blockwright("extract", f"docker://{registry}/team/app:1", tmp_path / "files")
    assert sorted(path.name for path in (tmp_path / "files").rglob("*")) == ["etc", "more", "motd"]


@pytest.mark.parametrize("registry", ["password"], indirect=True)
def test_a_registry_with_a_password(registry, layout, tmp_path):
    push(layout, registry, "--dest-creds", "me:secret")
    refused = blockwright("build", f"docker://{registry}/team/app:1", "-o", tmp_path / "x.img", code=4)
    assert b"log in" in refused.stderr
    (tmp_path / "docker").mkdir()
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    blockwright("build", f"docker://{registry}/team/app:1", "-o", tmp_path / "x.img")


def test_what_is_not_there_is_one_line(registry, tmp_path):
    missing = blockwright("build", f"docker://{registry}/none:1", "-o", tmp_path / "x.img", code=5)
    assert b"404" in missing.stderr
    assert not (tmp_path / "x.img").exists()
    blockwright("build", "docker://127.0.0.1:1/none:1", "-o", tmp_path / "x.img", code=1)


_BCRYPT = "abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
