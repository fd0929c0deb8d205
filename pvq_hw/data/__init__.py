"""Data files: inputs, labels and arrays that nobody vouches for."""
