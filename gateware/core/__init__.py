"""The cores of layers with weights."""
