"""Linux's swap area: the header that ``mkswap`` writes."""
