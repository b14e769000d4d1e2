"""OVA: a virtual machine to import, which is a description and a stream-optimized VMDK in a tar archive."""
