"""Compressed raw images, which are only read."""
