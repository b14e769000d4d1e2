"""What makes a disk start."""
