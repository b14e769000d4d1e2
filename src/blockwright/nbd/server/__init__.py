"""The server: exports by name, over any stream, within limits."""
