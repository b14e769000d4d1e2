"""QEMU's copy-on-write image format, versions 2 and 3."""
