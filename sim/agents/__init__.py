"""Behavioural models around a circuit: streams, serial lines, flash, boards."""
