"""What the wheel has beside the package: manual pages, and the scripts by which shells complete the command.

They are made of the commands themselves when the wheel is built, so they say what that version does.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own is of no use here
    """Fills ``shared_data`` of a wheel; an editable one has none, since its commands change."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files to a directory of their own, and tell where each belongs."""
        if version == "editable":
            return
        sys.path.insert(0, os.path.join(self.root, "src"))
        try:
            from blockwright.cli.manual import shared_files
        finally:
            sys.path.pop(0)
        self._made = tempfile.TemporaryDirectory()  # which goes where the build fails, too
        for name, text in shared_files():
            path = os.path.join(self._made.name, name.replace("/", "-"))
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            build_data["shared_data"][path] = f"share/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written."""
        if version != "editable":
            self._made.cleanup()
