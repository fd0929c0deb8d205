"""Adder trees, multipliers and rounding."""
