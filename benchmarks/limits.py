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
        "float32_flops": operations / best(lambda: torch.mm(a, b)),
        "bfloat16_flops": operations / best(lambda: torch.mm(x, y)),
        "int8_ops": operations / best(int8_product(threads)),
        "read_bytes_per_s": {str(size): size / best(reader(torch, size)) for size in (SMALL, LARGE)},
    }
    print(json.dumps(found))


def best(work: Callable, repeats: int = 15) -> float:
    """The shortest time in s: whatever disturbs only makes it longer."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def reader(torch, size: int) -> Callable:
    """Reads `size` bytes once, all threads: the sum of 64-bit integers needs nothing but the bytes."""
    data = torch.ones(size // 8, dtype=torch.int64)
    return lambda: data.sum()


def int8_product(threads: int) -> Callable:
    """DynamicQuantizeLinear and MatMulInteger with int8 weights, as in this lab's graphs, on onnxruntime."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    weight = np.random.default_rng(0).integers(-127, 127, (SIZE, SIZE), np.int8)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
             helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]), helper.make_node("Cast", ["i"], ["f"], to=1),
             helper.make_node("Mul", ["f", "s"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "xy"]
    graph = helper.make_graph(nodes, "int8", values[:1], values[1:], [onnx.numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(1).standard_normal((SIZE, SIZE), np.float32)}
    return lambda: session.run(None, feeds)


if __name__ == "__main__":
    main()
