"""What surrounds `torch.onnx.export` in 03: example inputs, silence on the screen, tidy graphs."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor, nn

from whisper_lab.export import graphs, naming

# Never 0 or 1: the exporter would take them for constants. The batch is a multiple of the recordings (2 beams each).
AUDIO, BATCH, SEQUENCE, PAST = 2, 4, 3, 5


def example_inputs(config) -> tuple[tuple[Tensor], tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Random inputs of the right shapes for both graphs, made by optimum's generators from its normalized config.

    Returns (input_features [2, n_mels, frames],) and (input_ids [4, 3], self caches [4, heads, 5, d_h],
    cross caches [2, heads, positions, d_h]).
    """
    from optimum.utils import DummyAudioInputGenerator, DummySeq2SeqPastKeyValuesGenerator, DummyTextInputGenerator

    normalized, task, positions = _normalized(config), "automatic-speech-recognition", config.max_source_positions
    sound = DummyAudioInputGenerator(task, normalized, batch_size=AUDIO, feature_size=config.num_mel_bins,
                                     nb_max_frames=2 * positions)
    text = DummyTextInputGenerator(task, normalized, batch_size=BATCH, sequence_length=SEQUENCE)

    def caches(rows: int, cross: int) -> list:
        return DummySeq2SeqPastKeyValuesGenerator(task, normalized, batch_size=rows, sequence_length=PAST,
                                                  encoder_sequence_length=cross).generate("past_key_values")

    past_self = tuple(cache for layer in caches(BATCH, 1) for cache in layer[:2])
    # Only their shapes count, and a large model's are a gigabyte: memory that no one touches costs nothing.
    past_cross = tuple(torch.empty(AUDIO, cache.shape[1], positions, cache.shape[3])
                       for layer in caches(AUDIO, 1) for cache in layer[2:])
    return (sound.generate("input_features"),), (text.generate("input_ids"), past_self, past_cross)


def _normalized(config):
    """A Whisper's config under the names that optimum's generators ask for."""
    from optimum.utils.normalized_config import NormalizedConfigManager

    # optimum's entry for Whisper lacks what its cache generator asks for; "encoder" means there: of the cross caches.
    return NormalizedConfigManager.get_normalized_config_class(config.model_type)(
        config, allow_new=True, decoder_num_layers="decoder_layers",
        encoder_num_attention_heads="decoder_attention_heads", decoder_num_attention_heads="decoder_attention_heads")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' and quantizers' remarks (torchvision missing, axis names shared) off the student's screen."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "onnxruntime", "root")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def recorded_once(export: Callable):
    """What `export` returns, a call of `torch.onnx.export`, without the second recording where that does nothing.

    The exporter records all of a model again, to replace the operators that ONNX has no translation of, and that takes
    longer than everything else. Whisper has none; of a model that has, the translation fails, and it is done again.
    """
    try:
        with mock.patch.object(torch.export.ExportedProgram, "run_decompositions", lambda program, table: program):
            return export()
    except torch.onnx.OnnxExporterError:
        return export()


@contextlib.contextmanager
def one_copy() -> Iterator[None]:
    """Let `quantize_dynamic` hold a model once instead of twice.

    It infers all shapes when it reads the file; its next step is to copy, write, and read the model again to infer
    them after Gemm nodes became MatMul. These graphs have no Gemm, so that step is left out; the result is the same.
    """
    from onnxruntime.quantization import onnx_quantizer

    with mock.patch.object(onnx_quantizer, "save_and_reload_model_with_shape_infer", lambda model: model):
        yield


def tidy(program):
    """An exporter's ONNXProgram -> onnx_ir.Model: nodes named after their modules, no traces of the machine, IR 9."""
    model = program.model
    naming.name_after_modules(model)
    naming.name_positions(model)
    model.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string = "whisper-onnx-lab", None, None
    model.graph.name, model.graph.doc_string, model.ir_version = "whisper", None, graphs.IR_VERSION
    return model


def let_go(program) -> None:
    """Drop a written graph's weights: the exporter's caches keep its values, and with them PyTorch's memory."""
    for value in program.model.graph.initializers.values():
        value.const_value = None


def parameters(module: nn.Module) -> int:
    """How many weights a graph will store; shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())
