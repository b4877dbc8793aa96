"""nn.Module to ONNX in the opset that a target reads. Needs torch."""
