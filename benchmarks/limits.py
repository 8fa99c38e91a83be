"""What this machine can do at best: float32 and int8 matrix products, and reading memory. Prints one line of JSON.

    python benchmarks/limits.py THREADS
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

SIZE = 2048  # of the matrices: 8.6 billion multiplications, long enough to reach the peak
SMALL, LARGE = 32 << 20, 512 << 20  # bytes: about what a decoder reads per token, and more than any cache holds


def main() -> None:
    """Measure, print."""
    import torch

    threads = int(sys.argv[1])
    torch.set_num_threads(threads)
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    x, y = a.bfloat16(), b.bfloat16()
    operations = 2 * SIZE**3
    found = {
        # Two libraries, because neither is the faster one everywhere: oneMKL, for one, holds back on AMD's processors.
        "float32_flops": operations / min(best(lambda: torch.mm(a, b)), best(float32_product(threads))),
        "bfloat16_flops": operations / best(lambda: torch.mm(x, y)),
        "int8_ops": operations / best(int8_product(threads)),
        "read_bytes_per_s": {str(size): size / best(reader(torch, size)) for size in (SMALL, LARGE)},
    }
    print(json.dumps(found))


def best(work: Callable, repeats: int = 15, patience: float = 10.0) -> float:
    """The shortest time in s: whatever disturbs only makes it longer. After `patience` s it is not repeated any more:
    a processor without bfloat16 may take a minute for one product."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < patience:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def reader(torch, size: int) -> Callable:
    """Reads `size` bytes once, all threads: the sum of 64-bit integers needs nothing but the bytes."""
    data = torch.ones(size // 8, dtype=torch.int64)
    return lambda: data.sum()


def float32_product(threads: int) -> Callable:
    """One MatMul of float32, on onnxruntime."""
    from onnx import helper

    weight = np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)
    return product([helper.make_node("MatMul", ["x", "w"], ["y"])], weight, threads)


def int8_product(threads: int) -> Callable:
    """DynamicQuantizeLinear and MatMulInteger with int8 weights, as in this lab's graphs, on onnxruntime."""
    from onnx import helper

    weight = np.random.default_rng(0).integers(-127, 127, (SIZE, SIZE), np.int8)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
             helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]), helper.make_node("Cast", ["i"], ["f"], to=1),
             helper.make_node("Mul", ["f", "s"], ["y"])]
    return product(nodes, weight, threads)


def product(nodes: list, weight: np.ndarray, threads: int) -> Callable:
    """Runs `nodes`, which make y from x and the weight w, all three SIZE x SIZE, in a session of its own."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "xy"]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], [onnx.numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(1).standard_normal((SIZE, SIZE), np.float32)}
    return lambda: session.run(None, feeds)


if __name__ == "__main__":
    main()
