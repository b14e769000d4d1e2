"""The GUID partition table: UEFI specification 2.10, chapter 5."""
