"""`python -m pipeline.bundle DIR`, which bundles made before version 0.2 name, and old MLflow models.

It works in a clone; the bundle itself is `basilar.Bundle`.
"""

import sys

from basilar.pipeline.deployment.bundle import Bundle, main

__all__ = ["Bundle"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
