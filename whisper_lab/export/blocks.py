"""Weights of 8 bits in blocks, a scale for each, multiplied by MatMulNBits (com.microsoft): --optimize's decoder, int4.

A token reads every weight once and computes little with it, so what counts is how fast one row of activations is
multiplied with a matrix. MatMulNBits has a kernel for just that, and MatMulInteger has none. It also quantizes each row
of activations by itself, block by block: a recording's numbers do not depend on what is beside it in a batch.

The token embedding is one tensor for both its uses here too: `Gather` looks up the blocks of a row.

An encoder hears hundreds of positions at once; for those MatMulInteger is faster.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab.console import LabError
from whisper_lab.export import graphs
from whisper_lab.export.int8 import round_rows, row_scales

CONTRIB = "com.microsoft"
FLOAT, UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8
SIZES = (128, 64, 32, 16)  # that the operator knows; 256 is no faster, and its scales are coarser
ZERO = 128  # what stands for 0 in an unsigned byte, where a MatMulNBits has no zero points
BITS, ACCURACY = 8, 4  # ACCURACY: activations become int8 as well


def size(d_model: int) -> int:
    """Weights in a block: the most that a row of `d_model` can be cut into. Raises LabError where it can into none."""
    found = next((size for size in SIZES if d_model % size == 0), None)
    if found is None:
        raise LabError(f"d_model is {d_model}, and int4 and --optimize cut it into blocks of {SIZES[-1]} or a multiple",
                       "take --precision int8 without --optimize")
    return found


def eight_bits(layers: int) -> str:
    """The linear layers to which int4 gives 8 bits, as a regular expression; layers: of the decoder.

    In whisper-base most of what 4 bits cost comes from fc1 in the decoder's upper half, behind which little is left
    that could even it out: benchmarks/likelihood.py tells how far a pair's next token is from float32's.
    """
    upper = "|".join(map(str, range(layers // 2, layers)))
    return rf"(v_proj|out_proj|fc2)/|^encoder\..*fc1/|^decoder\.layers\.({upper})\.fc1/"


def quantize(source: Path, target: Path, *rounds: tuple[int, int, list[str]]) -> None:
    """Every linear layer of a float32 graph but the logits, as MatMulNBits.

    rounds: bits, weights in a block, and the layers that stay as they are; what one leaves out the next may take.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(source)
    for bits, block, excluded in rounds:
        quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=block, is_symmetric=True, accuracy_level=ACCURACY,
                                         nodes_to_exclude=["proj_out/MatMul", *excluded])
        quantizer.process()
        model = quantizer.model.model
    quantizer.model.save_model_to_file(str(target), graphs.is_large(source))


def share_embedding(model: ir.Model) -> list[str]:
    """Replace the tied token embedding by blocks of 8 bits for both its uses; returns the names quantized.

    Lookup: (Gather(E_q, ids) - 128) * Gather(scale, ids). Logits: MatMulNBits, which reads E_q as it is stored.
    """
    head = next((node for node in graphs.weight_matmuls(model) if node.inputs[1].producer() is not None), None)
    if head is None:
        return []
    table = graphs.weight_of(head.inputs[1])
    rows, width = table.shape
    block = size(width)
    weight = table.const_value.numpy().reshape(-1, block)
    scales = row_scales(weight)
    small = (round_rows(weight, scales).view(np.uint8) + np.uint8(ZERO)).reshape(rows, -1, block)  # wraps: + 128
    quantized = graphs.constant(model, f"{table.name}_quantized", small)
    scale = graphs.constant(model, f"{table.name}_scale", scales.reshape(rows, -1))
    for use in list(table.uses()):
        if use.node.op_type == "Gather":
            _lookup(model, use.node, quantized, scale)
    _logits(model, head, quantized, scale, rows, width)
    graphs.drop_unused(model)
    return [table.name]


def _lookup(model: ir.Model, gather: ir.Node, quantized: ir.Value, scale: ir.Value) -> None:
    ids, name = gather.inputs[1], gather.name
    constants = {"zero": np.float32(ZERO), "axis": np.array([-1]), "shape": np.array([0, 0, -1])}
    zero, axis, shape = (graphs.constant(model, f"{name}_{what}", np.asarray(array))
                         for what, array in constants.items())
    rows = graphs.insert(model, gather, "Gather", [quantized, ids], f"{name}_quantized", dtype=UINT8)
    steps = graphs.insert(model, gather, "Gather", [scale, ids], f"{name}_scale", dtype=FLOAT)
    steps = graphs.insert(model, gather, "Unsqueeze", [steps, axis], f"{name}_scale_column", dtype=FLOAT)
    rows = graphs.insert(model, gather, "Cast", [rows], f"{name}_cast", dtype=FLOAT, to=FLOAT)
    rows = graphs.insert(model, gather, "Sub", [rows, zero], f"{name}_signed", dtype=FLOAT)
    rows = graphs.insert(model, gather, "Mul", [rows, steps], f"{name}_scaled", dtype=FLOAT)
    graphs.replace(gather.outputs[0],
                   graphs.insert(model, gather, "Reshape", [rows, shape], f"{name}_whole", dtype=FLOAT))


def _logits(model: ir.Model, head: ir.Node, quantized: ir.Value, scale: ir.Value, rows: int, width: int) -> None:
    transpose, block = head.inputs[1].producer(), quantized.shape[2]
    result = graphs.insert(model, head, "MatMulNBits", [head.inputs[0], quantized, scale], f"{head.name}_blocks",
                           domain=CONTRIB, dtype=FLOAT, K=width, N=rows, bits=BITS, block_size=block,
                           accuracy_level=ACCURACY)
    graphs.replace(head.outputs[0], result)
    model.graph.remove(transpose, safe=True)
