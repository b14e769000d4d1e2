"""The master boot record's partition table, with logical partitions."""
