"""`python -m diffident`."""

import sys

from diffident.cli import main

sys.exit(main())
