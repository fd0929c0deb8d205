"""The example network and its data, shipped with the package; see README.md here."""
