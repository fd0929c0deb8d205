"""The serial link, the loader of codes, and the top of a board."""
