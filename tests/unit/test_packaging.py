"""What is shipped beside the package: one version, units that systemd takes, a container file that holds."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

import blockwright
from blockwright._version import __released__
from tests.support.tools import run, tool

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNITS = sorted((ROOT / "packaging" / "systemd").iterdir())


def test_the_version_is_one() -> None:
    version = blockwright.__version__
    first, _, entry = (ROOT / "debian" / "changelog").read_text().partition("\n")
    assert re.match(rf"blockwright \({re.escape(version)}\) ", first)
    signed = re.search(r"^ -- .*>  (.*)$", entry, re.MULTILINE)
    assert signed
    assert parsedate_to_datetime(signed[1]).date().isoformat() == __released__
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", __released__)
    assert PROJECT["dynamic"] == ["version"]


def test_extras_together_are_all() -> None:
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == [f"blockwright[{','.join(sorted(set(extras) - {'all', 'dev', 'docs', 'fuzz'}))}]"]


def test_extras_that_texts_name_are_there() -> None:
    texts = [
        ROOT / "README.md",
        ROOT / "Containerfile",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").rglob("*.yml"),
    ]
    texts += Path(blockwright.__file__).parent.rglob("*.py")
    installs = re.compile(r"(?:blockwright|/src|['\"]\.|pip install \.)\[([a-z,]+)\]")
    named = [
        (path, name) for path in texts for match in installs.findall(path.read_text()) for name in match.split(",")
    ]
    assert {"store", "temporal", "metrics", "all"} <= {name for _, name in named}
    assert [each for each in named if each[1] not in PROJECT["optional-dependencies"]] == []


def test_every_extra_is_imported_somewhere() -> None:
    source = "\n".join(path.read_text() for path in Path(blockwright.__file__).parent.rglob("*.py"))
    for name, needs in PROJECT["optional-dependencies"].items():
        if name in ("all", "dev", "docs", "fuzz"):
            continue
        for need in needs:
            module = re.split(r"[\[<>=;\s]", need)[0].replace("-", "_").removesuffix("_api")
            assert re.search(rf"import {module}|from {module}", source), f"{name}: nothing imports {module}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_hold(unit: Path, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", package="systemd")
    text = unit.read_text()
    assert "ExecStart=/usr/bin/blockwright " in text
    made = tmp_path / unit.name.replace("@.", "@disk.")
    made.write_text(re.sub(r"/usr/bin/blockwright\b", "/bin/true", text))
    done = subprocess.run([analyze, "verify", "--man=no", made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made.write_text(text.replace("ExecStart=", "ExecStart=relative "))
    assert subprocess.run([analyze, "verify", "--man=no", made], capture_output=True, check=False).returncode != 0


def test_the_debian_package_says_what_it_needs(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "grep", "apt-get", "dpkg-deb"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    script = [tmp_path / "bash", ROOT / "scripts" / "deb"]
    done = subprocess.run(
        script, env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    wanted = "debhelper dpkg-dev git"
    assert (done.returncode, done.stderr) == (1, f"deb: needs {wanted}: apt install {wanted}\n")


def test_units_call_commands_that_there_are() -> None:
    from tests.support.commands import called

    for unit in UNITS:
        for line in re.findall(r"^Exec\w+=/usr/bin/(blockwright .*)$", unit.read_text(), re.MULTILINE):
            command, words = called(line.replace("$BLOCKWRIGHT_SERVE", "--socket x.sock"))
            with command.make_context("blockwright", words):
                pass


def test_the_container_file_s_commands_are_ours() -> None:
    from tests.support.commands import called

    text = (ROOT / "Containerfile").read_text()
    lines = re.findall(r"^#   (?:podman|docker) run .*? (blockwright \w.*)$", text, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        command, words = called(line)
        with command.make_context("blockwright", words):
            pass


def test_the_container_file_holds() -> None:
    text = (ROOT / "Containerfile").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    parsed = [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]
    assert {word for word, _ in parsed} <= {
        "FROM",
        "COPY",
        "RUN",
        "LABEL",
        "ENV",
        "VOLUME",
        "WORKDIR",
        "USER",
        "ENTRYPOINT",
        "CMD",
    }
    stages = [rest.split()[-1] for word, rest in parsed if word == "FROM" and " AS " in rest]
    for word, rest in parsed:
        names = shlex.split(rest) if word in ("COPY", "RUN") else []
        if word == "COPY" and not names[0].startswith("--from="):
            assert all((ROOT / name).exists() for name in names[:-1]), rest
        elif word == "COPY":
            assert names[0].removeprefix("--from=") in stages
    assert json.loads(dict(parsed)["ENTRYPOINT"]) == ["blockwright"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dict(parsed)["USER"]), "nothing runs as root unasked"
    (state,) = (rest for word, rest in parsed if word == "VOLUME")
    assert f"install -d -m 1777 {state}" in (rest for word, rest in parsed if word == "RUN"), (
        "any --user may keep things"
    )
    assert f"BLOCKWRIGHT_HOME={state}" in dict(parsed)["ENV"].split()
    ignored = (ROOT / ".containerignore").read_text().split()
    assert not {"src", "pyproject.toml", "hatch_build.py"} & set(ignored)


@pytest.mark.ci
def test_the_wheel_has_pages_and_scripts(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shared = {name.partition(".data/data/share/")[2] for name in names}
    assert {"man/man1/blockwright.1", "man/man1/blockwright-fs-ls.1", "zsh/site-functions/_blockwright"} <= shared
    assert {"bash-completion/completions/blockwright", "fish/vendor_completions.d/blockwright.fish"} <= shared
    inside = {name for name in names if name.startswith("blockwright/")}
    source = Path(blockwright.__file__).parent
    assert {f"blockwright/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py")} <= inside


@pytest.mark.ci
def test_the_zipapp_runs_on_a_bare_python(tmp_path: Path) -> None:
    """With what is installed here; `scripts/zipapp` asks pip for the same."""
    import backports.zstd
    import click
    import google_crc32c

    source = tmp_path / "all"
    source.mkdir()
    for module in (blockwright, click, google_crc32c):
        (source / module.__name__).symlink_to(Path(module.__file__).parent)
    libraries = Path(google_crc32c.__file__).parents[1] / "google_crc32c.libs"
    if libraries.exists():
        (source / libraries.name).symlink_to(libraries)
    (source / "backports").mkdir()
    shutil.copytree(Path(backports.zstd.__file__).parent, source / "backports" / "zstd")
    archive = tmp_path / "blockwright.pyz"
    run([sys.executable, str(ROOT / "scripts/make_zipapp.py"), str(source), str(tmp_path / "app"), str(archive)])
    (tmp_path / "files").mkdir()
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "everybody").mkdir()
    (tmp_path / "everybody").chmod(0o777)
    # Compiled parts unpacked, and without them.
    for place in (tmp_path / "cache", Path("/proc/nowhere"), tmp_path / "everybody"):
        environment["XDG_CACHE_HOME"] = str(place)
        for words in (
            ["--version"],
            ["build", "files", "-o", "d.img", "--force"],
            ["check", "d.img"],
            ["convert", "d.img", "d.qcow2", "--compress", "--force"],
            ["check", "d.qcow2"],
        ):
            done = subprocess.run(
                [sys.executable, "-I", "-S", archive, *words],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, b""), words
        command = [sys.executable, "-I", "-S", archive]
        packed, told = (
            subprocess.run(
                [*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            for words in (["convert", "d.img", "d.img.zst", "--force"], ["doctor", "build", "--json"])
        )
        native = place == tmp_path / "cache" or sys.version_info >= (3, 14)
        assert (packed.returncode == 0) == native, packed.stderr
        assert native or packed.stderr.startswith("blockwright: zstd: this Python has no library: ")
        states = {line["name"]: line["state"] for line in json.loads(told.stdout)["lines"]}
        assert states["zstd"] == ("ready" if native else "missing")
    assert len(list((tmp_path / "cache" / "blockwright").iterdir())) == 1
    assert not list((tmp_path / "everybody" / "blockwright").iterdir()), "anybody could put other code there"
