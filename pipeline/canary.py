"""`python -m pipeline.canary` in a clone: what older bundles name."""

import sys

from basilar.pipeline.compute.canary import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
