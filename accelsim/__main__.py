"""`python -m accelsim`: the command line."""

import sys

from accelsim.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
