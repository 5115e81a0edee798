"""`python -m pipeline.bundle DIR` in a clone: what older bundles name.

MLflow models that were logged before import `Bundle` from here.
"""

import sys

from basilar.pipeline.deployment.bundle import Bundle, main

__all__ = ["Bundle"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
