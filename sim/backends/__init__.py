"""The simulators, and how designs are made ready for them."""
