"""From a float model to the integer network."""
