"""Tar archives as trees: ustar, pax and GNU, strictly read."""

from blockwright.tree.tar.read import looks_like_tar, read_tar, read_tar_stream

__all__ = ["looks_like_tar", "read_tar", "read_tar_stream"]
