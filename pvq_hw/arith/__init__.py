"""Integer formats and exact products."""
