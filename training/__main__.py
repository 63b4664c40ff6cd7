"""`python -m cologen.training train ...` is `cologen train ...`: what torchrun starts."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
