"""What an export starts from: checkpoints and ONNX files, read and answered as they are."""
