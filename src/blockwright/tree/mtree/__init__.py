"""Manifests in mtree's format: read, applied to a tree, and written. See mtree(5) of FreeBSD, NetBSD, libarchive."""
