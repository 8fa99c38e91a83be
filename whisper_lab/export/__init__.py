"""From a PyTorch Whisper to two ONNX graphs, smaller copies of them, and the proof that they still say the same."""
