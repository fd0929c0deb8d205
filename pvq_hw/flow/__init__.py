"""The path from a model file to an output, step by step, and the options of a run."""
