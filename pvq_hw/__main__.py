"""``python -m pvq_hw``."""

import os
import sys

# Python puts the current folder first, whose files would be imported for modules of the same name.
# It stays, as the last, where it is the one that holds this package.
if not sys.flags.safe_path:
    first = os.path.abspath(sys.path.pop(0))
    if first == os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        sys.path.append(first)

from pvq_hw.cli import main

sys.exit(main())
