"""What a disk is to be, from a file or directory in any of the forms that are known.

Knows: which form a path has. Refuses to know: any of the forms.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Final

from blockwright.build.toml_read import Asked, parse_toml, read_text

_GENIMAGE: Final = re.compile(r"^[ \t]*(image|flash)\s+[^\s={]+\s*\{", re.MULTILINE)


def read_definition(path: str, options: Collection[str] = ()) -> Asked:
    """Return what the path asks for: a directory of repart.d's, a file of genimage's, or else TOML.

    ``options`` are keys of the caller's own. Raises FormatError with file and line; NotFound, OSError.
    """
    if os.path.isdir(path):
        from blockwright.build.repart import read_repart

        return read_repart(path)
    text = read_text(path)
    if not path.endswith(".toml") and _GENIMAGE.search(text):
        from blockwright.build.genimage import read_genimage

        return read_genimage(text, path)
    return parse_toml(text, path, options)
