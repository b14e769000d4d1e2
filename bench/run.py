"""Every measurement there is, one table behind the other: ``make bench``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import attach
import bomb
import build
import content
import convert
import ext4_edit
import fat_edit
import nbd
import nbd_copy
import nbd_tls
import pipeline
import resize
import start
import volumes
import volumes_thin

if __name__ == "__main__":
    start.main(start.ROUNDS)
    build.main()
    bomb.main()
    content.main()
    ext4_edit.main()
    fat_edit.main()
    attach.main()
    nbd.main()
    nbd_copy.main()
    nbd_tls.main()
    convert.main()
    resize.main()
    volumes.main()
    volumes_thin.main()
    pipeline.main()
