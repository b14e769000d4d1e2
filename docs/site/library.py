"""What of the library is public, by topic, and a page in reStructuredText for each topic.

A name is public where a page of the documentation or an example imports it (a test holds the table to that), where
the command itself is one call of it, and where such a name cannot be used without it.

Knows: names. Refuses to know: what they do; their docstrings say it.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any, Final, NamedTuple


class Topic(NamedTuple):
    """``names`` by module, below ``blockwright``; ``*`` is all that the module's ``__all__`` has."""

    page: str
    title: str
    text: str
    names: Mapping[str, str]


TOPICS: Final = (
    Topic(
        "addresses",
        "Addresses: open what a name means",
        "What the command takes as IMAGE, opened: files, parts of them, exports, volumes, objects in a store.",
        {
            "resolve": "open_device open_file_system open_editor open_output identify Known",
            "address": "Address parse_address part_name",
            "format.policy": "Policy REFUSE",
            "units": "parse_size parse_fraction format_size",
        },
    ),
    Topic(
        "devices",
        "Devices: bytes to read and write",
        "The one abstraction that everything else stands on, what makes a device of a file, of memory or of an "
        "object of your own, and what copies one into another.",
        {
            "device": "*",
            "device.adapter": "ObjectDevice BinaryFileDevice",
            "device.file": "open_path FileDevice",
            "device.memory": "MemoryDevice ZeroDevice",
            "device.window": "Window",
            "device.concat": "Concat",
            "device.overlay": "Overlay",
            "device.cache": "CachedDevice",
            "device.forwarding": "ForwardingDevice",
            "device.fileobject": "DeviceFile",
            "device.copy": "copy CopyResult",
            "device.output": "OutputFile",
            "device.inplace": "DeviceOutput",
        },
    ),
    Topic(
        "trees",
        "Trees: files as values",
        "Directories, files and links before they are in any file system; read from a host, a tar archive or any "
        "other source, changed, compared and written out.",
        {
            "tree": "*",
            "tree.content": "DeviceRange",
            "tree.host": "read_directory read_node",
            "tree.tar": "*",
            "tree.rules": "ArchiveRules Remarks",
            "tree.changes": "*",
            "tree.changes.ready": "ready Ready Surroundings",
            "tree.extract": "extract ExtractOptions Extracted Owner",
            "tree.compare": "compare_trees differences Difference",
            "tree.digest": "tree_digest",
            "source": "*",
            "extract": "extract",
            "manifest": "manifest",
        },
    ),
    Topic(
        "filesystems",
        "File systems: plan, read, change",
        "A plan is a value: every block of a file system that does not exist yet. Readers and editors answer to one "
        "interface, whichever file system is there.",
        {
            "fs.reader": "FileSystem Stat Entry Usage",
            "fs.editor": "Editor Attributes CommitPolicy DEFAULT_POLICY",
            "fs.ext4.options": "Ext4Options Features",
            "fs.ext4.plan": "plan Ext4Plan",
            "fs.ext4.device": "open_plan",
            "fs.ext4.read": "open",
            "fs.ext4.edit": "open",
            "fs.ext4.resize": "*",
            "fs.fat.options": "FatOptions",
            "fs.fat.plan": "plan FatPlan",
            "fs.fat.device": "open_plan",
            "fs.fat.edit": "open",
        },
    ),
    Topic(
        "disks",
        "Disks: partition tables, building, checking",
        "What ``build``, ``disk``, ``check``, ``compare``, ``convert`` and ``inspect`` are one call of.",
        {
            "build.run": "build Built",
            "build.definition": "*",
            "build.toml_read": "read_toml",
            "build.repart": "read_repart",
            "build.genimage": "read_genimage",
            "disk.create": "create",
            "disk.edit": "DiskEditor",
            "disk.resize": "resize Resized",
            "table.partition": "Partition MbrPartition PartitionTable MbrTable",
            "table.read": "read",
            "table.gaps": "Wish",
            "table.gpt.change": "add change remove resize free_number only_legacy_boot room",
            "table.gpt.names": "TYPES parse_type type_name",
            "table.mbr.change": "add change remove resize",
            "check": "check check_image repair Place",
            "finding": "Finding",
            "compare": "compare",
            "against": "compare Comparison",
            "inspect": "inspect Report Region FileSystemReport",
        },
    ),
    Topic(
        "formats",
        "Formats: images other than raw",
        "What reads and writes qcow2, VMDK and the others, and what a package of your own registers to add one.",
        {
            "convert": "convert convert_to_stream update DiskWrite",
            "format.output": "ImageOptions image_output new_image",
            "format.registry": "Format Option find_format format_by_name",
            "format.driver": "Driver",
            "format.open": "open_image format_of Files",
            "snapshot": "Images",
        },
    ),
    Topic(
        "nbd",
        "NBD: serve and connect",
        "A server for any device, a client that is a device, and a probe of what a server breaks of the protocol.",
        {
            "nbd.server.export": "Export",
            "nbd.server.server": "Server",
            "nbd.server.listeners": "Listener listen_unix listen_tcp listen_vsock closing_all parse_host_port",
            "nbd.server.access": "AccessList access_list",
            "nbd.server.limits": "Limits",
            "nbd.server.metrics": "CommandMetrics OTHER",
            "nbd.server.connection": "Options serve_connection",
            "nbd.server.ending": "Ending",
            "nbd.client.connect": "connect from_socket describe list_exports",
            "nbd.client.options": "ClientOptions",
            "nbd.client.device": "NbdDevice ResizableNbdDevice",
            "nbd.uri": "NbdUri parse_uri",
            "nbd.wire": "Command",
            "nbd.conformance": "*",
        },
    ),
    Topic(
        "attach",
        "The kernel's devices: loop, nbd, device-mapper",
        "For Linux, and for root. Each call speaks the kernel's own interfaces and starts no program.",
        {
            "attach.nbd": "attach detach refresh exports devices gc Attached Device",
            "attach.partitions": "add remove mappings gc table_of Mapped",
            "attach.means": "Means Mapping",
            "attach.verity": "open_verified close gc Opened",
            "system.linux.loop": "*",
            "system.linux.dm": "*",
        },
    ),
    Topic(
        "volumes",
        "Volumes and pools",
        "Disks that are kept, with snapshots: in files without root, or in device-mapper's thin pools.",
        {"volume": "*"},
    ),
    Topic(
        "scanners",
        "Scanners and policy",
        "A tree or an SBOM held against a policy, by programs that are installed.",
        {"scan": "*", "scan.scanner": "Database Report Subject Workplace"},
    ),
    Topic(
        "extending",
        "Plugins, fsspec, doctor",
        "How an installed package is found, what fsspec is answered with, and what a machine has for us.",
        {
            "plugin": "DEVICES FORMATS SOURCES SCANNERS GROUPS find_plugin plugin_names",
            "fsspec": "ImageFileSystem",
            "doctor": "*",
        },
    ),
    Topic(
        "testing",
        "Testing a device of your own",
        "Conformance, and devices that fail, crash and record. No test framework is needed.",
        {"testing": "*"},
    ),
    Topic(
        "errors",
        "Errors",
        "Every exception that is raised on purpose. Each has one line of text and an exit code of the command.",
        {"errors": "*"},
    ),
)


class Public(NamedTuple):
    """A public name: how it is imported, and what it is."""

    module: str
    name: str
    value: Any

    @property
    def full(self) -> str:
        """The whole name, as the page has it."""
        return f"{self.module}.{self.name}"


def public(topic: Topic) -> Iterator[Public]:
    """Yield the names of a topic, in its order, imported."""
    for path, names in topic.names.items():
        module = pkgutil.resolve_name(f"blockwright.{path}")
        for name in offered(module) if names == "*" else names.split():
            yield Public(module.__name__, name, getattr(module, name))


def offered(module: ModuleType) -> list[str]:
    """Return what a module offers: its ``__all__``, or else the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return [name for name in own if not name.startswith("_")]


@cache
def everything() -> tuple[Public, ...]:
    """Return every public name there is."""
    return tuple(each for topic in TOPICS for each in public(topic))


@cache
def aliases() -> dict[str, str]:
    """Return by the name of the module that defines it where each class and function is documented."""
    return {
        f"{each.value.__module__}.{each.value.__qualname__}": each.full
        for each in everything()
        if inspect.isclass(each.value) or inspect.isfunction(each.value)
    }


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page, ``index`` first."""
    lines = [*_title("The library", "="), "By topic. What is not here may change without a word.", ""]
    lines += [".. toctree::", "   :maxdepth: 1", "", *(f"   {topic.page}" for topic in TOPICS), ""]
    yield "index", "\n".join(lines)
    for topic in TOPICS:
        yield topic.page, "\n".join(_page(topic))


def _page(topic: Topic) -> Iterator[str]:
    yield from (*_title(topic.title, "="), topic.text, "")
    module = ""
    for each in public(topic):
        if each.module != module:
            module = each.module
            yield from _title(module, "-")
        yield from _entry(each)


def _entry(each: Public) -> Iterator[str]:
    if inspect.isclass(each.value):
        kind = "autoexception" if issubclass(each.value, BaseException) else "autoclass"
        yield from (f".. {kind}:: {each.full}", "   :members:", "   :undoc-members:", "   :show-inheritance:", "")
    elif inspect.isroutine(each.value):
        yield from (f".. autofunction:: {each.full}", "")
    else:
        text = inspect.cleandoc(constant_doc(pkgutil.resolve_name(each.module), each.name))
        yield from (f".. py:data:: {each.full}", "", textwrap.indent(text, "   "), "")


@cache
def constant_doc(module: ModuleType, name: str) -> str:
    """Return the string behind a constant's assignment, in whichever module that stands; empty without one."""
    body = ast.parse(inspect.getsource(module)).body
    for at, each in enumerate(body):
        if isinstance(each, ast.ImportFrom) and each.module and name in [alias.name for alias in each.names]:
            return constant_doc(pkgutil.resolve_name(each.module), name)
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        if name in [target.id for target in targets if isinstance(target, ast.Name)]:
            behind = body[at + 1] if at + 1 < len(body) else None
            if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
                return str(behind.value.value)
    return ""


def _title(text: str, mark: str) -> list[str]:
    return [text, mark * len(text), ""]
