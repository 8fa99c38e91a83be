"""onnx-asr, its type `whisper`: two graphs on onnxruntime, log-mel in NumPy. It cannot be made to write a given number
of tokens. Setting: none."""

import harness


def listen(job: dict):
    """Short: `recognize`, greedy. Long: behind Silero's voice activity detector, which is its own way."""
    import onnx_asr
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    model = onnx_asr.load_model("whisper", job["artefact"], quantization="int8", sess_options=options,
                                providers=["CPUExecutionProvider"])

    def hear(samples, clip):
        if not clip["long"]:
            return model.recognize(samples, language=clip["language"])
        vad = onnx_asr.load_vad("silero", job["artefact"], sess_options=options,
                                providers=["CPUExecutionProvider"])
        found = model.with_vad(vad).recognize(samples, language=clip["language"])
        return " ".join(segment.text.strip() for segment in found)

    return hear


harness.main(None, listen)
