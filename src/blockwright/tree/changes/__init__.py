"""What is changed between a source and what is made of it, as functions from a tree to a tree."""

from blockwright.tree.changes.options import Addition, Changes

__all__ = ["Addition", "Changes"]
