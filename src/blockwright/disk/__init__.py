"""Disks changed in place: their partition tables, their sizes."""
