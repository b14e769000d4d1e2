"""Serving disks: from what a user names to exports, and the server's life as a process."""
