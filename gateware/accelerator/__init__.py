"""The circuit of a whole network."""
