"""From a reference to a volume: fetched, verified, scanned, made, activated; safe to kill, and to run again.

Each step is a function from what came before to a receipt, and does no harm when it is done twice. The runner, the
catalogue and an engine of many machines all stand on these functions.
"""
