"""The mathematics of the pyramid: nearest points, search and enumeration."""
