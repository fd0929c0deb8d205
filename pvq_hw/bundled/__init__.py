"""The example network and its data, shipped with the package; see README.md here."""

from pathlib import Path

__all__ = ["DIGITS", "DIGITS_DATA", "DIGITS_RATIO"]

DIGITS = Path(__file__).parent / "digits_mlp_64_32_10.onnx"
DIGITS_DATA = Path(__file__).parent / "digits.npz"
DIGITS_RATIO = 1.5
"""Mean N/K at which the digits lose nothing that counts."""
