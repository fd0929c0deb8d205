"""Specifications of the circuits: numbers, golden computation and timing."""
