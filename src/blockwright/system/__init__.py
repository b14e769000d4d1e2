"""The operating system's own interfaces to block devices, by system calls alone."""
