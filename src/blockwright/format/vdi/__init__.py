"""VDI, the format of VirtualBox."""
