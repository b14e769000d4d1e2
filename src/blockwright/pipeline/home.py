"""Where the pipeline keeps what it knows and what it fetched: below the same directory as the pools of volumes.

Knows: names of files. Refuses to know: what is in them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from blockwright.home import state_home


@dataclass(frozen=True, slots=True)
class Home:
    """The pipeline's directory, which need not be there yet."""

    folder: str

    @classmethod
    def default(cls) -> Self:
        """Return the one that belongs to this user, and to BLOCKWRIGHT_HOME."""
        return cls(os.path.join(state_home(), "images"))

    @property
    def journal(self) -> str:
        """The database of runs."""
        return os.path.join(self.folder, "journal.db")

    @property
    def catalogue(self) -> str:
        """The database of images."""
        return os.path.join(self.folder, "catalogue.db")

    @property
    def objects(self) -> str:
        """The folder of objects that were fetched from stores."""
        return os.path.join(self.folder, "objects")

    @property
    def sboms(self) -> str:
        """The folder of lists of what images hold."""
        return os.path.join(self.folder, "sboms")

    def work(self, run: str) -> str:
        """Return the folder that a run may use, and that is gone when it ends."""
        return os.path.join(self.folder, "work", run)

    def lock(self, name: str) -> str:
        """Return the file of a lock."""
        return os.path.join(self.folder, "locks", name)

    def make(self) -> None:
        """Have the folders there. Raises OSError."""
        for each in (
            self.folder,
            self.objects,
            self.sboms,
            os.path.join(self.folder, "work"),
            os.path.join(self.folder, "locks"),
        ):
            os.makedirs(each, mode=0o700, exist_ok=True)
