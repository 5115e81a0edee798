"""`python -m pipeline.canary`, which bundles made before version 0.2 name, in a clone."""

import sys

from basilar.pipeline.compute.canary import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
