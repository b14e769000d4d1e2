#!/usr/bin/python3 -sP
import sys

sys.path.insert(0, "/usr/lib/blockwright")

from blockwright.cli import main

main()
