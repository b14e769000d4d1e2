"""A list of what software something holds (SBOM), read: which packages, of which operating system.

Knows: CycloneDX 1.2 to 1.7 and SPDX 2.2 and 2.3, both as JSON. Refuses to know: who made the list (``syft``), and who
looks its packages up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotThisFormat
from blockwright.scan.packages import MAX_PACKAGES, Package, parse_purl
from blockwright.units import MiB, format_size

MAX_SBOM: Final = 512 * MiB
"""Bytes of a list."""

MAX_DEPTH: Final = 64
"""Components within components."""


class SbomFormat(Enum):
    """In which words it is written."""

    CYCLONEDX = "cyclonedx"
    SPDX = "spdx"


@dataclass(frozen=True, slots=True)
class Sbom:
    """A list in the file ``path``: its packages, and the operating system, as in ``debian 12``, empty for none."""

    path: str
    form: SbomFormat
    packages: tuple[Package, ...]
    system: str


def read_sbom(path: str) -> Sbom:
    """Return what the file at ``path`` lists. Raises NotFound, OSError, and as ``parse_sbom``."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SBOM + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    return parse_sbom(data, path)


def parse_sbom(data: bytes, path: str) -> Sbom:
    """Return what an SBOM lists. Raises NotThisFormat, Corrupt, LimitExceeded."""
    if len(data) > MAX_SBOM:
        raise LimitExceeded(f"SBOM: expected at most {format_size(MAX_SBOM)}, found more", source=path)
    document = load_json(data, path, "SBOM")
    if isinstance(document, dict) and document.get("bomFormat") == "CycloneDX":
        form, found = SbomFormat.CYCLONEDX, _Found(path)
        found.cyclonedx(document)
    elif isinstance(document, dict) and str(document.get("spdxVersion", "")).startswith("SPDX-2."):
        form, found = SbomFormat.SPDX, _Found(path)
        found.spdx(document)
    else:
        raise NotThisFormat("SBOM: expected CycloneDX or SPDX 2 as JSON, found neither", source=path)
    return Sbom(path, form, tuple(dict.fromkeys(found.packages)), found.system or _system_of(found.packages))


def load_json(data: bytes, path: str, what: str) -> Any:
    """Return what JSON says. Raises Corrupt for anything else."""
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Corrupt(f"{what}: expected UTF-8", source=path, offset=error.start) from None
    except RecursionError:
        raise Corrupt(f"{what}: expected JSON of some depth, found it nested too deeply", source=path) from None
    except json.JSONDecodeError as error:
        message = f"{what}: expected JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise Corrupt(message, source=path, offset=error.pos) from None
    except ValueError as error:  # an integer of too many digits, or what is no number
        raise Corrupt(f"{what}: expected JSON: {str(error)[:64].lower()}", source=path) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


class _Found:
    """Packages and the operating system, as they are met."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.packages: list[Package] = []
        self.system = ""

    def cyclonedx(self, document: Mapping[str, Any]) -> None:
        stack: list[tuple[Any, int]] = [(document.get("components", []), 0)]
        while stack:
            components, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise LimitExceeded(f"SBOM: expected at most {MAX_DEPTH} levels of components", source=self._path)
            for each in self._objects(components, "components"):
                if each.get("type") == "operating-system":
                    self._operating_system(each)
                self._purl(each.get("purl"))
                if each.get("components") is not None:
                    stack.append((each["components"], depth + 1))

    def spdx(self, document: Mapping[str, Any]) -> None:
        for each in self._objects(document.get("packages", []), "packages"):
            if each.get("primaryPackagePurpose") == "OPERATING-SYSTEM":
                self._operating_system({"name": each.get("name"), "version": each.get("versionInfo")})
            for reference in self._objects(each.get("externalRefs", []), "externalRefs"):
                if reference.get("referenceType") == "purl":
                    self._purl(reference.get("referenceLocator"))

    def _operating_system(self, component: Mapping[str, Any]) -> None:
        texts = (component.get("name"), component.get("version"))
        self.system = " ".join(each for each in texts if isinstance(each, str) and each)[:128]

    def _purl(self, text: object) -> None:
        package = parse_purl(text) if isinstance(text, str) else None
        if package is None:
            return
        if len(self.packages) >= MAX_PACKAGES:
            raise LimitExceeded(f"SBOM: expected at most {MAX_PACKAGES} packages, found more", source=self._path)
        self.packages.append(package)

    def _objects(self, value: object, name: str) -> Iterator[Mapping[str, Any]]:
        if not isinstance(value, list):
            raise Corrupt(f"SBOM: {name}: expected a list, found {type(value).__name__}", source=self._path)
        for each in value:
            if not isinstance(each, dict):
                raise Corrupt(
                    f"SBOM: {name}: expected objects in the list, found {type(each).__name__}", source=self._path
                )
            yield each


def _system_of(packages: list[Package]) -> str:
    """Return the operating system that package URLs name, as in ``debian-12``."""
    for package in packages:
        if package.distribution:
            return package.distribution.replace("-", " ", 1)[:128]
    return ""
