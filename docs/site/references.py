"""What pages say in code quotes becomes a link where it is a command or a public name, and an error where it is gone.

``blockwright fs ls …`` leads to the command, ``blockwright.resolve.open_device`` and ``device.base.BlockDevice`` to
the class or function; a command that there is not, or a name that cannot be imported, is a warning of Sphinx's.

Knows: how both are written. Refuses to know: what they are.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import click
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

from blockwright.cli.run import root
from blockwright.plugin import GROUPS
from docs.site.commands import label
from docs.site.library import aliases, everything

_LOGGER: Final = logging.getLogger(__name__)
_DOTTED: Final = re.compile(r"(?:[a-z_][a-z0-9_]*\.)+[A-Za-z_][A-Za-z0-9_]*")
_CALL: Final = re.compile(r"blockwright ((?:[a-z][a-z-]*(?: |$))+)")
_PYTHON: Final = ("plugins", "python")
"""Pages that say names of the library without their modules."""


def commands() -> Iterator[str]:
    """Yield how each command is called, without the program's name."""
    yield from _below(root, click.Context(root, info_name="blockwright"))


def _below(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            if each is not None and not each.hidden:
                inner = click.Context(each, info_name=name, parent=context)
                yield inner.command_path.partition(" ")[2]
                yield from _below(each, inner)


@cache
def _commands() -> frozenset[str]:
    return frozenset(commands())


def command_of(text: str) -> str | None:
    """Return the command that a text calls, None where it is no call. Raises LookupError for one that is gone."""
    found = _CALL.match(text)
    words = found.group(1).split() if found else text.split() if text.count(" ") else []
    for count in range(len(words), 0, -1):
        if " ".join(words[:count]) in _commands():
            return " ".join(words[:count]) if found or count > 1 else None
    if found:
        raise LookupError(f"no command blockwright {words[0]}")
    return None


def name_of(text: str, *, short: bool) -> str | None:
    """Return the public name that a text is, None where it is none. Raises LookupError for what is nowhere.

    ``short`` is whether a name alone will do.
    """
    if short or _DOTTED.fullmatch(text):
        fitting = _endings().get(text, set())
        if len(fitting) == 1:
            return next(iter(fitting))
        if not fitting and text.startswith("blockwright.") and text not in GROUPS:
            expect_name(text)
    return None


@cache
def _endings() -> dict[str, set[str]]:
    """Return by each ending of a public name, such as ``base.BlockDevice``, where what is so called is documented."""
    found: dict[str, set[str]] = {}
    for name, documented in [*aliases().items(), *((each.full, each.full) for each in everything())]:
        parts = name.split(".")
        for start in range(len(parts)):
            found.setdefault(".".join(parts[start:]), set()).add(aliases().get(documented, documented))
    return found


def expect_name(text: str) -> None:
    """Raise LookupError where a dotted name is none that Python knows."""
    try:
        pkgutil.resolve_name(text)
    except (ImportError, AttributeError):
        raise LookupError(f"no name {text}") from None


class Linking(SphinxTransform):
    """Makes references of quoted code."""

    default_priority = 400

    def apply(self, **_kwargs: Any) -> None:
        """Go over a page's quoted code that is in no heading and in no link."""
        for literal in list(self.document.findall(nodes.literal)):
            if not isinstance(literal.parent, nodes.title | nodes.reference | addnodes.pending_xref | nodes.term):
                try:
                    self._link(literal, literal.astext())
                except LookupError as error:
                    _LOGGER.warning("%s", error.args[0], location=literal, type="ref", subtype="blockwright")

    def _link(self, literal: nodes.literal, text: str) -> None:
        docname = self.env.docname
        command = command_of(text)
        if command is not None and not docname.startswith("commands/"):
            self._refer(literal, "std", "ref", label(command))
        elif command is None and (name := name_of(text, short=docname in _PYTHON)) is not None:
            self._refer(literal, "py", "obj", name)

    def _refer(self, literal: nodes.literal, domain: str, kind: str, target: str) -> None:
        reference = addnodes.pending_xref(
            "",
            refdomain=domain,
            reftype=kind,
            reftarget=target,
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        literal.replace_self(reference)
        reference += literal


def missing(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element) -> Any:
    """Answer for what signatures name: a class where it is documented; what others and our inside have, as text."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    documented = aliases().get(target)
    if documented is not None and documented != target:
        domain = env.domains["py"]
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", documented, node, content)
    if "." not in target:
        return content if hasattr(builtins, target) or target in _words() else None
    try:
        expect_name(target)
    except LookupError:
        return None
    return content


@cache
def _words() -> frozenset[str]:
    """Return what annotations may name without a module, since a module of a public name has it."""
    modules = {sys.modules[each.value.__module__] for each in everything() if hasattr(each.value, "__module__")}
    return frozenset(name for module in modules for name in vars(module))


def complete() -> None:
    """Import what modules import for their annotations only, so that signatures say which class they mean."""
    for module in {sys.modules[each.value.__module__] for each in everything() if hasattr(each.value, "__module__")}:
        if module.__name__.startswith("blockwright"):
            for each in ast.parse(inspect.getsource(module)).body:
                if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING":
                    exec(compile(ast.Module(each.body, []), str(module.__file__), "exec"), vars(module))  # noqa: S102


def shown(*given: Any) -> tuple[str | None, str | None]:
    """Return a signature in which a default that is made anew for each object is written as Python has it."""
    signature, returned = given[-2:]
    return (signature and signature.replace("<factory>", "...")), returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    complete()
    app.add_transform(Linking)
    app.connect("autodoc-process-signature", shown)
    app.connect("missing-reference", missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
