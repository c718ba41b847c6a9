"""``python -m meshd``: the same as the ``meshd`` command."""

import sys

from meshd.cli import main

if __name__ == "__main__":
    sys.exit(main())
