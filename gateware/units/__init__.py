"""Circuits around the cores: pooling, joins, FIFOs and line buffers."""
