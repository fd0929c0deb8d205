"""The integer network, the numeric contract, and its packed weights."""
