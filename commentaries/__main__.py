"""``python -m commentaries``, the same as the command ``commentaries``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
