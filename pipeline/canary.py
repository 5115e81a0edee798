"""`python -m pipeline.canary` in a clone: what bundles made before version 0.2 name."""

import sys

from basilar.pipeline.compute.canary import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
