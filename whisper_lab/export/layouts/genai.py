"""--layout genai: a folder that onnxruntime-genai opens, around the very graphs that this lab writes.

    model = onnxruntime_genai.Model("whisper_model_dir/whisper-base_int8_genai")

genai's Whisper wants three things beside the two graphs: genai_config.json, which maps its names for inputs and
outputs to those of the graphs; a recipe for the features; the tokenizer. It opens graphs in the folder of its
configuration only, so they are linked into it (copied where the disk has no links). Tried with onnxruntime-genai
0.18.0, which has fixed Whisper's window at 3000 frames.
"""

from pathlib import Path

from whisper_lab import console, files, names
from whisper_lab.console import LabError
from whisper_lab.export.layouts import Job, place, place_tokenizer
from whisper_lab.features import FeatureSpec, hann

FRAMES = 3000  # "Whisper uses num_frames = 3000", says genai to any other window
INPUTS = {"encoder": {"audio_features": "input_features"},
          "decoder": {"input_ids": "input_ids", "past_key_names": "past_key_self_%d",
                      "past_value_names": "past_value_self_%d", "cross_past_key_names": "past_key_cross_%d",
                      "cross_past_value_names": "past_value_cross_%d"}}
OUTPUTS = {"encoder": {"encoder_hidden_states": "encoder_hidden_states",
                       "cross_present_key_names": "present_key_cross_%d",
                       "cross_present_value_names": "present_value_cross_%d"},
           "decoder": {"logits": "logits", "present_key_names": "present_key_self_%d",
                       "present_value_names": "present_value_self_%d"}}


def check(name: str, spec: FeatureSpec) -> None:
    """Raises LabError for a checkpoint that genai cannot run."""
    if spec.n_frames != FRAMES:
        raise LabError(f"onnxruntime-genai takes windows of {FRAMES} frames only, and {name} has {spec.n_frames}",
                       "leave out --layout genai, or export a published size such as --model base")


def write(job: Job) -> tuple[Path, None]:
    """Make `<name>_<precision>_genai/` beside the graphs; returns it. No gate: the graphs in it are the checked ones.

    Raises LabError where the folder cannot be written.
    """
    folder = job.folder("genai")
    files.write_json(folder / "genai_config.json", configuration(job.config, job.pair))
    files.write_json(folder / "audio_processor_config.json", feature_recipe(job.spec))
    place_tokenizer(job, folder)
    for path in job.pair.values():
        for graph in (path, names.sidecar(path)):
            if graph.is_file():
                place(graph, folder, link=graph == path)  # weights beside a graph may have one name only
    console.note("layout genai", folder, "onnxruntime_genai.Model opens it; the graphs in it are links, not copies")
    return folder, None


def configuration(config, pair: dict[str, Path]) -> dict:
    """genai_config.json."""
    parts = {}
    for part, path in pair.items():
        heads = getattr(config, f"{part}_attention_heads")
        parts[part] = {"filename": path.name, "session_options": {"log_id": "onnxruntime-genai",
                                                                  "provider_options": []},
                       "head_size": config.d_model // heads, "hidden_size": config.d_model,
                       "num_attention_heads": heads, "num_key_value_heads": heads,
                       "num_hidden_layers": getattr(config, f"{part}_layers"),
                       "inputs": INPUTS[part], "outputs": OUTPUTS[part]}
    ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size")}
    return {"model": {"type": "whisper", "context_length": config.max_target_positions, **ids, **parts},
            # A buffer shared by past and present has a fixed length: these graphs make a longer cache at every step.
            "search": {"do_sample": False, "max_length": config.max_target_positions, "min_length": 0, "num_beams": 1,
                       "past_present_share_buffer": False, "temperature": 1.0, "top_k": 1, "top_p": 1.0}}


def feature_recipe(spec: FeatureSpec) -> dict:
    """audio_processor_config.json; genai looks for the Fourier window in a field that is named _comment."""
    steps = [("audio_decoder", "AudioDecoder", None),
             ("STFT", "STFTNorm", {"n_fft": spec.n_fft, "frame_length": spec.n_fft, "hop_length": spec.hop_length,
                                   "_comment": [float(value) for value in hann(spec.n_fft)]}),
             ("log_mel_spectrogram", "LogMelSpectrum", {"chunk_size": round(spec.window_s), "n_fft": spec.n_fft,
                                                        "hop_length": spec.hop_length, "n_mel": spec.n_mels})]
    return {"feature_extraction": {"sequence": [
        {"operation": {"name": name, "type": kind, **({} if attributes is None else {"attrs": attributes})}}
        for name, kind, attributes in steps]}}
