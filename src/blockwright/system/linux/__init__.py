"""Linux: loop devices, network block devices, device-mapper, partitions of block devices.

Everything imports on every platform; what is called elsewhere than on Linux raises Unavailable.
"""
