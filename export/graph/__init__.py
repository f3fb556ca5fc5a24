"""What an export writes: the deployed graph, around a network or an ONNX file, and an engine of it."""
