"""Runs on many machines: the steps as activities of Temporal, whose history alone has the runs.

Devices are the truth of each machine's own volume journal as ever. Nothing outside this package imports temporalio.
"""
