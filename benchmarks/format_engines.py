"""Logits of the engines that own a file format, for benchmarks/formats.py: openai-whisper, ctranslate2, whisper.cpp.

Each writes its format with its own tools where it has them, and raises ImportError where it is not installed.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np

PACKAGES = ["transformers", "torch", "openai-whisper", "ctranslate2", "pywhispercpp"]
GGML_TYPES = {"q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}
ENGINE_THREADS = 1


def openai_whisper(speech, path: Path, dtype: str) -> np.ndarray:
    """Write a .pt as openai-whisper loads it, and its own float32 logits of it, [positions, vocabulary]."""
    import torch
    import whisper
    from whisper.model import ModelDimensions, Whisper

    config = speech.model.config
    sizes = ModelDimensions(
        config.num_mel_bins, config.max_source_positions, config.d_model, config.encoder_attention_heads,
        config.encoder_layers, config.vocab_size, config.max_target_positions, config.d_model,
        config.decoder_attention_heads, config.decoder_layers)
    from benchmarks.ggml import rename

    state = {rename(name): value.to(getattr(torch, dtype)) for name, value in speech.model.state_dict().items()
             if name != "proj_out.weight"}
    Whisper(sizes).load_state_dict(state)  # strict: these are the names that it has
    torch.save({"dims": vars(sizes), "model_state_dict": state}, path)
    model = whisper.load_model(str(path), device="cpu")
    with torch.inference_mode():
        return model(torch.from_numpy(speech.features), torch.tensor([speech.tokens]))[0].numpy()


def ctranslate2(speech, folder: Path, kind: str | None, compute_type: str) -> tuple[np.ndarray, list[int]]:
    """Convert with its own converter (`kind` None: `folder` is there already), and its logits on greedy search.

    It takes no text to be read: it writes its own, and the logits of each token are those that chose it. Returns logits
    [positions, vocabulary], the first after the prompt, and the prompt with the tokens that were read.
    """
    import ctranslate2 as engine
    from ctranslate2.converters import TransformersConverter

    if kind is not None:
        TransformersConverter(str(speech.checkpoint), copy_files=["tokenizer.json"]).convert(
            str(folder), quantization=kind)
    model = engine.models.Whisper(str(folder), device="cpu", compute_type=compute_type, intra_threads=ENGINE_THREADS)
    result = model.generate(engine.StorageView.from_array(speech.features), [speech.prompt], beam_size=1,
                            return_logits_vocab=True, suppress_blank=False, suppress_tokens=[],
                            max_length=len(speech.tokens))[0]
    steps = np.stack([np.array(step) for step in result.logits[0]])
    return steps, speech.prompt + result.sequences_ids[0][:len(steps) - 1]


class ContextParameters(ctypes.Structure):
    """whisper_context_params of whisper.h, 1.8."""

    _fields_ = [("use_gpu", ctypes.c_bool), ("flash_attn", ctypes.c_bool), ("gpu_device", ctypes.c_int),
                ("dtw_token_timestamps", ctypes.c_bool), ("dtw_aheads_preset", ctypes.c_int),
                ("dtw_n_top", ctypes.c_int), ("n_heads", ctypes.c_size_t), ("heads", ctypes.c_void_p),
                ("dtw_mem_size", ctypes.c_size_t)]


def library(name: str) -> ctypes.CDLL:
    """A shared library inside pywhispercpp's wheel, whose bindings do not reach the logits or the quantizer."""
    import _pywhispercpp  # loads them all, in the right order

    folder = Path(_pywhispercpp.__file__).with_name("pywhispercpp.libs")
    return ctypes.CDLL(str(next(folder.glob(f"{name}-*"))))


def whisper_cpp(speech, path: Path) -> np.ndarray:
    """whisper.cpp's logits [positions, vocabulary], one token at a time over its own cache."""
    engine = library("libwhisper")
    engine.whisper_context_default_params.restype = ContextParameters
    engine.whisper_init_from_file_with_params.argtypes = [ctypes.c_char_p, ContextParameters]
    engine.whisper_init_from_file_with_params.restype = ctypes.c_void_p
    engine.whisper_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    settings = engine.whisper_context_default_params()
    settings.use_gpu, settings.flash_attn = False, False
    context = ctypes.c_void_p(engine.whisper_init_from_file_with_params(str(path).encode(), settings))
    if not context:
        raise RuntimeError(f"whisper.cpp does not open {path.name}")
    try:
        return np.stack(list(steps(engine, context, speech)))
    finally:
        engine.whisper_free(context)


def steps(engine, context, speech):
    """Logits [vocabulary] after each token."""
    mel = np.ascontiguousarray(speech.features[0], np.float32)
    pointer = mel.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    if engine.whisper_set_mel(context, pointer, mel.shape[1], mel.shape[0]) or \
            engine.whisper_encode(context, 0, ENGINE_THREADS):
        raise RuntimeError("whisper.cpp does not encode")
    count = engine.whisper_n_vocab(context)
    for i, token in enumerate(speech.tokens):
        if engine.whisper_decode(context, ctypes.byref(ctypes.c_int32(token)), 1, i, ENGINE_THREADS):
            raise RuntimeError("whisper.cpp does not decode")
        yield np.ctypeslib.as_array(engine.whisper_get_logits(context), (count,)).copy()


def ggml_quantizer(kind: str) -> Callable[[np.ndarray], tuple[int, bytes]]:
    """ggml's own quantizer: a float32 matrix -> its type's number and the blocks."""
    base = library("libggml-base")
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                         ctypes.c_int64, ctypes.c_void_p]

    def encode(matrix: np.ndarray) -> tuple[int, bytes]:
        out = ctypes.create_string_buffer(matrix.nbytes)
        length = base.ggml_quantize_chunk(GGML_TYPES[kind], matrix.ctypes.data, out, 0, *matrix.shape, None)
        return GGML_TYPES[kind], out.raw[:length]

    return encode


def ggml_weights_difference(kind: str, path: Path, folder: Path) -> float:
    """The largest difference between the folder's weights and what ggml's own code makes of the file's blocks."""
    from safetensors.numpy import load_file

    from whisper_lab.weights.openai import hf_name

    ours, worst = load_file(folder / "model.safetensors"), 0.0
    read = getattr(library("libggml-base"), f"dequantize_row_{kind}")
    read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    read.restype = None
    for name, raw in quantized_tensors(path):
        expected = np.empty(ours[hf_name(name)].size, np.float32)
        read(raw, expected.ctypes.data, expected.size)
        worst = max(worst, float(np.abs(ours[hf_name(name)].ravel() - expected).max()))
    return worst


def quantized_tensors(path: Path):
    """(name, bytes) of every tensor in blocks, by a walk through the file that trusts it."""
    import struct

    sizes = {2: 18, 3: 20, 6: 22, 7: 24, 8: 34}
    data, at = path.read_bytes(), 4 + 44
    rows, columns = struct.unpack_from("<2i", data, at)
    at += 8 + 4 * rows * columns
    count, at = struct.unpack_from("<i", data, at)[0], at + 4
    for _ in range(count):
        at += 4 + struct.unpack_from("<i", data, at)[0]
    while at < len(data):
        rank, length, code = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{rank}i", data, at + 12)
        at += 12 + 4 * rank
        name, at = data[at:at + length].decode(), at + length
        numbers = int(np.prod(shape))
        size = numbers // 32 * sizes[code] if code in sizes else numbers * {0: 4, 1: 2}[code]
        if code in sizes:
            yield name, data[at:at + size]
        at += size
