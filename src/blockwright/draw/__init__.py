"""Drawings as text: a disk's picture in characters, as SVG and as HTML; values in, strings out, no I/O."""
