"""``python -m blockwright`` is the command."""

from blockwright.cli import main

if __name__ == "__main__":
    main()
