# SPDX-License-Identifier: PSF-2.0
"""``python -m benchmarks``: see compare.py, or ``--help``."""

import sys

from benchmarks.compare import main

if __name__ == "__main__":
    sys.exit(main())
