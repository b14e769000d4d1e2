"""dm-verity: the hash tree that proves every block of a device, computed, laid out and checked."""
