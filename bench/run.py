"""Every measurement there is, one table behind the other: ``make bench``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import attach
import build
import nbd
import nbd_copy
import nbd_tls
import resize

if __name__ == "__main__":
    build.main()
    attach.main()
    nbd.main()
    nbd_copy.main()
    nbd_tls.main()
    resize.main()
