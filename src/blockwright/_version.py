"""The version, and nothing else: the build reads it from here."""

__version__ = "0.1.0"
__released__ = "2026-11-28"
