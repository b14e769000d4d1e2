"""File systems: each has layout, plan, device, read and check under the same names."""
