"""What joins the kernel's devices with the rest of the package: partitions of images and disks as block devices."""
