"""Network block devices: a server, a client and a conformance probe."""
