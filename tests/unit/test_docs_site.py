"""The documentation as HTML: complete, and refused where it refers to what there is not."""

import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import click
import pytest

from blockwright.cli.manual import EXIT_CODES
from blockwright.cli.run import root
from docs.site import commands, library
from docs.site.pages import Pages
from tests.support.commands import every_command, examples
from tests.support.tools import missing

TOP = Path(__file__).parents[2]
COMMANDS = {path: (command, context) for path, command, context in every_command() if path}
SECTION = re.compile(r"^\(command-([a-z-]+)\)=\n(.*?)(?=^\(command-|^## Exit codes|\Z)", re.DOTALL | re.MULTILINE)
IMPORTS = re.compile(r"^ *from blockwright([a-z0-9_.]*) import ([\w, ]+)$", re.MULTILINE)
PUBLIC = {each.full: each for each in library.everything()}


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """What the pages say of each command, by how it is called with hyphens."""
    found = [each for _, text in commands.pages(root) for each in SECTION.findall(text)]
    assert len(dict(found)) == len(found), "a command is told of twice"
    return dict(found)


def test_every_command_is_on_a_page(sections: dict[str, str]) -> None:
    assert set(sections) == {path.replace(" ", "-") for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_s_section_is_whole(path: str, sections: dict[str, str]) -> None:
    command, context = COMMANDS[path]
    text = sections[path.replace(" ", "-")]
    if not isinstance(command, click.Group):
        assert f"blockwright {path}" in text.partition("\n\n")[2], "usage"
    for line in examples(command):
        assert line.strip() in text
    for each in command.get_params(context):
        if isinstance(each, click.Argument):
            assert f"`{each.make_metavar(context).strip('[]')}`\n: " in text
        elif (record := each.get_help_record(context)) is not None and "--help" not in record[0]:
            assert f"`{record[0]}`\n: {commands.escaped(' '.join(record[1].split()))}\n" in text


def test_pages_of_commands_lead_to_all_of_them_and_tell_exit_codes() -> None:
    pages = dict(commands.pages(root))
    for name, text in pages.items():
        assert all(f"| {code} | " in text for code, _ in EXIT_CODES), name
    trees = [text for page in pages.values() for text in re.findall(r"```{toctree}\n(.*?)```", page, re.DOTALL)]
    listed = [name for text in trees for name in text.split() if not name.startswith(":")]
    assert sorted(["index", *listed]) == sorted(pages)
    assert {"fs", "disk-bitmap", "build"} <= set(pages)


def test_markdown_shows_text_as_it_is() -> None:
    assert commands.escaped("a_b *c* <d> --no-cache, x--y `f | g` #1") == (
        r"a\_b \*c\* \<d\> `--no-cache`, x--y `f | g` \#1"
    )
    assert list(commands.prose("One\ntwo.\n\n\b\nExamples:\n  a  b\n")) == (
        ["One two.", "", "**Examples**", "", "```text", "a  b", "```", ""]
    )


def test_every_public_name_is_on_one_page() -> None:
    texts = dict(library.pages())
    assert set(texts) == {"index", *(topic.page for topic in library.TOPICS)}
    together = "\n".join(texts.values())
    told = re.findall(r"^\.\. (?:autoclass|autoexception|autofunction|py:data):: (\S+)$", together, re.MULTILINE)
    assert sorted(told) == sorted(PUBLIC)
    assert len(PUBLIC) == len(library.everything())
    assert all(f"   {topic.page}\n" in texts["index"] for topic in library.TOPICS)


def test_what_pages_and_examples_import_is_public() -> None:
    sources = [TOP / "README.md", *TOP.glob("docs/*.md"), *TOP.glob("examples/**/*.py")]
    for source in sources:
        for module, names in IMPORTS.findall(source.read_text()):
            for name in names.split(", "):
                full = f"blockwright{module}.{name}"
                value = getattr(pkgutil.resolve_name(f"blockwright{module}"), name, None)
                parts = [each for each in PUBLIC if each.startswith(f"{full}.")] if inspect.ismodule(value) else []
                same = [each for each in PUBLIC.values() if each.name == name and each.value is value]
                assert same or parts or name == "__version__", f"{source.name}: {full} is on no page"


def members(owner: type) -> list[tuple[str, object]]:
    """What a class has that is called, of ours and public."""
    return [
        (name, each)
        for name, each in inspect.getmembers_static(owner)
        if not name.startswith("_")
        and (inspect.isfunction(each) or isinstance(each, property | classmethod | staticmethod))
        and any(name in vars(base) for base in owner.__mro__ if base.__module__.startswith("blockwright"))
    ]


def says_something(text: str | None, name: str) -> bool:
    """Whether a docstring is one: not what dataclasses and the like make up, and more than the name once more."""
    words = re.findall(r"\w+", (text or "").lower())
    return len(words) >= 3 and not (text or "").startswith((f"{name}(", "Alias for field"))


@pytest.mark.parametrize("full", PUBLIC)
def test_every_public_name_has_a_docstring_that_says_something(full: str) -> None:
    module, name, value = PUBLIC[full]
    if not inspect.isclass(value):
        own = inspect.isroutine(value)
        text = value.__doc__ if own else library.constant_doc(pkgutil.resolve_name(module), name)
        assert says_something(text, name), full
        return
    assert says_something(value.__doc__, name), full
    if issubclass(value, Enum):
        return
    for each, member in members(value):
        assert says_something(inspect.getdoc(getattr(value, each)), each), f"{full}.{each}"
        assert member is not None


def test_a_docstring_that_says_nothing_would_be_seen() -> None:
    class Empty:
        def run(self):
            """Run."""

    assert not says_something(Empty.__doc__, "Empty")
    assert not says_something("Point(x, y, z)", "Point")
    assert not says_something(Empty.run.__doc__, "run")


def test_links_lead_from_page_to_page(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "LICENSE").touch()
    (tmp_path / "README.md").write_text("[a](docs/index.md#there)\n```\n[a](docs/index.md)\n```\n[l](LICENSE)\n")
    (tmp_path / "docs/index.md").write_text("# D\n\n**Learn it**: [a](../README.md) [gone](gone.md)\n")
    Pages(tmp_path, tmp_path / "out").write(reference=False)
    assert (
        tmp_path / "out/readme.md"
    ).read_text() == "[a](index.md#there)\n```\n[a](docs/index.md)\n```\n[l](../LICENSE)\n"
    index = (tmp_path / "out/index.md").read_text()
    assert "[a](readme.md) [gone](gone.md)" in index
    assert index.endswith("```{toctree}\n:hidden:\n:titlesonly:\n:caption: Learn it\n\nreadme\n```\n")


def made(top: Path) -> subprocess.CompletedProcess[str]:
    """Have Sphinx make HTML of the pages of ``top``, without those that are made of the code."""
    if importlib.util.find_spec("sphinx") is None:
        missing("sphinx is missing: pip install 'blockwright[docs]'")
    code = (
        "import sys; from pathlib import Path; from docs.site.build import fetched, make; "
        "from docs.site.pages import Pages; top = Path(sys.argv[1]); "
        "Pages(top, top / 'source').write(reference=False); "
        "sys.exit(not (make(top / 'source', top / 'html') and not fetched(top / 'html')))"
    )
    return subprocess.run([sys.executable, "-c", code, top], cwd=TOP, capture_output=True, text=True, check=False)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder of pages without a mistake."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# One\n\n## Part `two`\n\n[a](docs/index.md), `blockwright`, `os.path`\n")
    (tmp_path / "docs/index.md").write_text("# All\n\n**Read**: [one](../README.md#part-two)\n")
    return tmp_path


@pytest.mark.slow
def test_pages_without_a_mistake_are_made(written: Path) -> None:
    done = made(written)
    assert (done.returncode, done.stderr) == (0, "")
    text = (written / "html/index.html").read_text()
    assert 'href="readme.html#part-two"' in text


MISTAKES = {
    "[a](gone.md)": "cross-reference target not found: 'gone.md'",
    "[a](docs/index.md#gone)": "local id not found in doc 'index': 'gone'",
    "`blockwright.device.gone`": "no name blockwright.device.gone",
    "`blockwright biuld x`": "no command blockwright biuld",
    "`blockwright fs ls`": "undefined label: 'command-fs-ls'",  # whose page is not made here
}


@pytest.mark.slow
def test_what_leads_nowhere_fails(written: Path) -> None:
    (written / "docs/lost.md").write_text("# Lost\n")
    with (written / "README.md").open("a") as page:
        page.writelines(f"\n{text}\n" for text in MISTAKES)
    done = made(written)
    assert done.returncode == 1
    for told in MISTAKES.values():
        assert re.search(rf"readme\.md:\d+: WARNING: .*{re.escape(told)}", done.stderr), done.stderr
    assert "lost.md: WARNING: document isn't included in any toctree" in done.stderr
    assert done.stderr.count("WARNING") == len(MISTAKES) + 1


def test_what_is_fetched_from_elsewhere_is_seen(tmp_path: Path) -> None:
    if importlib.util.find_spec("sphinx") is None:
        missing("sphinx is missing: pip install 'blockwright[docs]'")
    from docs.site.build import fetched

    (tmp_path / "a.html").write_text(
        '<a href="https://a/"></a><script async src="https://b/x.js"></script><img src="c">'
    )
    (tmp_path / "b.css").write_text("a { background: url(//d/font) } b { background: url(e.png) }")
    assert fetched(tmp_path) == ["a.html: https://b/x.js", "b.css: //d/font"]
