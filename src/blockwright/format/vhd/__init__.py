"""VHD, the format of Virtual PC, Hyper-V and Azure: fixed, dynamic and differencing disks."""
