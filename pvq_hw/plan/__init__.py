"""Engines and lanes of every layer, what they cost, and the memory files."""
