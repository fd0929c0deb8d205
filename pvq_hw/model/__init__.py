"""The float graph and its importers."""
