"""Raw images: the disk, byte for byte, or that compressed."""
