"""`python -m umbel.compat.ray`."""

import sys

from umbel.compat.ray import install as install
from umbel.compat.ray import runner

if __name__ == "__main__":
    runner.main(sys.argv[1:])
