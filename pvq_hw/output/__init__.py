"""The output folder as a value: writing, manifest, report and verification."""
