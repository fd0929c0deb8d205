"""``python -m pvq_hw``."""

import sys

from pvq_hw.cli import main

sys.exit(main())
