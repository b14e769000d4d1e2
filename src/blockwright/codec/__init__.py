"""Fixed binary records as typed classes, and the checksums that on-disk formats use."""
