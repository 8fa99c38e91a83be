"""sherpa-onnx's recognizer, greedy. It cannot be made to write a given number of tokens, and hears one window. Setting:
none."""

import harness


def listen(job: dict):
    """A recognizer for each language: it is told when it is made."""
    import sherpa_onnx

    made, folder = {}, job["artefact"]

    def hear(samples, clip):
        language = clip["language"]
        if language not in made:
            made[language] = sherpa_onnx.OfflineRecognizer.from_whisper(
                encoder=f"{folder}/encoder.int8.onnx", decoder=f"{folder}/decoder.int8.onnx",
                tokens=f"{folder}/tokens.txt", language=language, num_threads=job["threads"])
        stream = made[language].create_stream()
        stream.accept_waveform(16000, samples)
        made[language].decode_stream(stream)
        return stream.result.text

    return hear


harness.main(None, listen)
