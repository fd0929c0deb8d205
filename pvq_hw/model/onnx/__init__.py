"""ONNX files: reading, checking and lowering."""
