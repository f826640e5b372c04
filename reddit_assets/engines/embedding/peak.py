"""How fast this processor multiplies matrices: the yardstick for an embedding engine."""

from __future__ import annotations

import threading
import time
from importlib.util import find_spec
from typing import Any

import numpy as np

__all__ = ["SHAPE", "matmul_gflops"]

SHAPE = (2048, 384, 1536)
"""Tokens × hidden × intermediate: the largest product in a layer of MiniLM."""
SECONDS = 0.6


def matmul_gflops(precision: str, threads: int) -> float | None:
    """Rate of the product ``SHAPE`` with ``threads`` cores, in 10⁹ operations per second.

    Each core multiplies matrices of its own, so that no synchronisation is counted. fp32 is
    measured with onnxruntime and with torch, and the faster one counts; bf16 needs torch.

    Returns:
        The rate, or ``None`` when nothing installed here multiplies in that precision.
    """
    rates = []
    if precision == "fp32" and find_spec("onnxruntime") and find_spec("onnx"):
        rates.append(_rate(_onnx_product, threads))
    if find_spec("torch") is not None:
        rates.append(_rate(lambda: _torch_product(precision), threads))
    return max(rates, default=None)


def _onnx_product() -> Any:
    import onnxruntime
    from onnx import TensorProto, helper

    m, k, n = SHAPE
    sides = {"left": [m, k], "right": [k, n], "product": [m, n]}
    left, right, product = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        for name, sizes in sides.items()
    )
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", [left, right], [product])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(0)
    feeds = {
        "left": random.normal(size=(m, k)).astype(np.float32),
        "right": random.normal(size=(k, n)).astype(np.float32),
    }
    return lambda: session.run(None, feeds)


def _torch_product(precision: str) -> Any:
    import torch

    m, k, n = SHAPE
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)

    def multiply() -> None:
        torch.set_num_threads(1)  # OpenMP keeps this number per calling thread.
        torch.nn.functional.linear(left, right)

    return multiply


def _rate(make: Any, threads: int) -> float:
    products = [make() for _ in range(threads)]
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        multiply = products[index]
        multiply()
        barrier.wait()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            multiply()
            counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    return 2 * SHAPE[0] * SHAPE[1] * SHAPE[2] * sum(counts) / seconds / 1e9
