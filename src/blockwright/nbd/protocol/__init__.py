"""Both ends of NBD without I/O: handshakes as generators, transmission as functions between values and bytes."""
