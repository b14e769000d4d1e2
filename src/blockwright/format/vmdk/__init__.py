"""VMDK: disks of VMware's products, in one file or several, sparse, flat, or compressed in a stream."""
