"""Every call that docs/attach.md names is there, with the arguments it names, and takes a logger."""

import inspect
import re
from pathlib import Path

import pytest

from blockwright.attach import nbd, partitions
from blockwright.system.linux import dm, loop

DOCUMENT = Path(__file__).parents[3] / "docs" / "attach.md"
MODULES = {"loop": loop, "partitions": partitions, "nbd": nbd, "mapper": dm.Mapper, "dm": dm}
CALLS = sorted(
    {
        match.groups()
        for line in DOCUMENT.read_text().splitlines()
        if line.startswith("|")
        for match in re.finditer(r"`(loop|partitions|nbd|mapper|dm)\.([A-Za-z_]+)\(([^`]*)\)", line)
    }
)


@pytest.mark.parametrize(("module", "name", "arguments"), CALLS, ids=lambda each: each[:30])
def test_call(module, name, arguments):
    function = getattr(MODULES[module], name)
    known = inspect.signature(function).parameters
    for given in re.findall(r"(\w+)=", arguments):
        assert given in known
    assert module == "mapper" or known["logger"].default is None


def test_there_are_calls():
    assert len(CALLS) > 30
    assert "logger" in inspect.signature(dm.Mapper).parameters
