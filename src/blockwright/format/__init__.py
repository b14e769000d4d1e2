"""Disk image formats as devices: told by their marks, opened by a caller's policy, each with one address map."""
