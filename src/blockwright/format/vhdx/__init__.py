"""VHDX, the format of Hyper-V since 2012."""
