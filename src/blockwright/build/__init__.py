"""A definition becomes a disk."""
