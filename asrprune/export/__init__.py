"""Writing a model as an ONNX file for other runtimes."""
