"""OpenVINO GenAI's WhisperPipeline. Setting: none; the precision is the artefact's. It cannot be made to write a given
number of tokens."""

import harness


def listen(job: dict):
    """`generate`, greedy by default; it joins the windows of a long recording by timestamps, asked for or not."""
    import openvino_genai

    pipeline = openvino_genai.WhisperPipeline(job["artefact"], "CPU", INFERENCE_NUM_THREADS=job["threads"])
    several = pipeline.get_generation_config().is_multilingual

    def hear(samples, clip):
        settings = {"language": f"<|{clip['language']}|>", "task": "transcribe"} if several else {}
        return pipeline.generate(samples.tolist(), return_timestamps=clip["long"], **settings).texts[0]

    return hear


harness.main(None, listen)
