"""TensorFlow Lite files: reading, checking and translation into the graph that ONNX files have."""
