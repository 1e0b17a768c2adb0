"""`python -m robustdml` is the command line."""

import sys

from robustdml.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
