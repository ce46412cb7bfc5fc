"""`python -m plaudit`: the same door as the `plaudit` command."""

from __future__ import annotations

import sys

from plaudit.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
