"""sherpa-onnx's recognizer, greedy. It cannot be made to write a given number of tokens, and hears one window. Setting:
none."""

from pathlib import Path

import harness


def listen(job: dict):
    """A recognizer for each language: it is told when it is made."""
    import sherpa_onnx

    made, folder = {}, Path(job["artefact"])
    encoder, decoder, tokens = (str(next(folder.glob(name))) for name in ("*encoder*.onnx", "*decoder*.onnx",
                                                                          "*tokens.txt"))

    def hear(samples, clip):
        language = clip["language"]
        if language not in made:
            made[language] = sherpa_onnx.OfflineRecognizer.from_whisper(
                encoder=encoder, decoder=decoder, tokens=tokens, language=language, num_threads=job["threads"])
        stream = made[language].create_stream()
        stream.accept_waveform(16000, samples)
        made[language].decode_stream(stream)
        return stream.result.text

    return hear


harness.main(None, listen)
