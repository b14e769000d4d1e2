"""Where this user's state is kept from one boot to the next.

Knows: directories by convention. Refuses to know: who keeps what there.
"""

from __future__ import annotations

import os


def state_home() -> str:
    """Return the directory: BLOCKWRIGHT_HOME, /var/lib/blockwright as root, or one below XDG_STATE_HOME."""
    home = os.environ.get("BLOCKWRIGHT_HOME")
    if home:
        return os.path.abspath(home)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return "/var/lib/blockwright"
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "blockwright")
