"""How fast this processor multiplies matrices: the yardstick for an embedding engine.

Every library at hand multiplies the shapes of a transformer layer, and the fastest one counts: a
yardstick that is slower than the engine would be none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from reddit_assets.engines.host import cpu_has_bf16
from reddit_assets.errors import first_line

__all__ = ["SHAPES", "Peak", "matmul_peak"]

log = logging.getLogger(__name__)

SHAPES = ((2048, 384, 1536), (512, 384, 1536), (2048, 1536, 384))
"""Tokens × inner × outer size of products in a layer of MiniLM."""
SECONDS = 0.3

Product = Callable[[], Any]


@dataclass(frozen=True)
class Peak:
    """The fastest matrix product.

    Attributes:
        gflops: its rate, in 10⁹ operations per second.
        library: what computed it.
        shape: of the product.
    """

    gflops: float
    library: str
    shape: tuple[int, int, int]

    def __str__(self) -> str:
        sizes = " × ".join(map(str, self.shape))
        return f"{self.gflops:,.0f} GFLOPS ({self.library}, {sizes})"


def matmul_peak(precision: str, threads: int) -> Peak | None:
    """The fastest product with ``threads`` cores, each multiplying matrices of its own.

    Args:
        precision: ``fp32`` or ``bf16``.

    Returns:
        ``None`` where nothing here multiplies in that precision.
    """
    if precision == "bf16" and not cpu_has_bf16():
        return None  # torch would emulate it.
    found = []
    for library, make in LIBRARIES.items():
        for shape in SHAPES:
            try:
                rate = _rate([make(precision, shape) for _ in range(threads)], shape)
            except Exception as error:
                # A library that is not here, or that cannot multiply so, sets no yardstick.
                log.debug("No %s product of %s: %s", precision, library, first_line(error))
                continue
            found.append(Peak(rate, library, shape))
    return max(found, key=lambda peak: peak.gflops, default=None)


def _matrices(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    m, k, n = shape
    random = np.random.default_rng(0)
    return (
        random.standard_normal((m, k), dtype=np.float32),
        random.standard_normal((k, n), dtype=np.float32),
    )


def _numpy_product(precision: str, shape: tuple[int, int, int]) -> Product:
    if precision != "fp32" or find_spec("threadpoolctl") is None:
        raise NotImplementedError(precision)
    left, right = _matrices(shape)
    out = np.empty((shape[0], shape[2]), np.float32)
    return lambda: np.matmul(left, right, out=out)


def _torch_product(precision: str, shape: tuple[int, int, int]) -> Product:
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.from_numpy(side).to(dtype) for side in _matrices(shape))
    right = right.T.contiguous()

    def multiply() -> None:
        torch.set_num_threads(1)  # OpenMP keeps this number per calling thread.
        torch.nn.functional.linear(left, right)

    return multiply


def _graph(shape: tuple[int, int, int]) -> tuple[bytes, np.ndarray]:
    """An ONNX model of one product with constant weights, as a layer's are; and what goes in."""
    from onnx import TensorProto, helper, numpy_helper

    left, right = _matrices(shape)
    sizes = {"left": [shape[0], shape[1]], "product": [shape[0], shape[2]]}
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()
    )
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    weights = [numpy_helper.from_array(right, "right")]
    graph = helper.make_graph([node], "product", [given], [made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), left


def _onnx_product(precision: str, shape: tuple[int, int, int]) -> Product:
    import onnxruntime

    if precision != "fp32":
        raise NotImplementedError(precision)
    model, left = _graph(shape)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})


def _openvino_product(precision: str, shape: tuple[int, int, int]) -> Product:
    import openvino

    model, left = _graph(shape)
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(model, b""), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda: request.infer({"left": left}, share_inputs=True)


LIBRARIES: dict[str, Callable[[str, tuple[int, int, int]], Product]] = {
    "numpy": _numpy_product,
    "onnxruntime": _onnx_product,
    "openvino": _openvino_product,
    "torch": _torch_product,
}


def _rate(products: Sequence[Product], shape: tuple[int, int, int]) -> float:
    """Rate of products that run side by side, one thread each, in 10⁹ operations per second."""
    for multiply in products:
        multiply()  # An error is raised here, and not in a thread that others wait for.
    counts = [0] * len(products)
    barrier = threading.Barrier(len(products) + 1)

    def work(index: int) -> None:
        multiply = products[index]
        multiply()
        barrier.wait()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            multiply()
            counts[index] += 1

    with _one_thread_each():
        workers = [threading.Thread(target=work, args=(i,)) for i in range(len(products))]
        for worker in workers:
            worker.start()
        barrier.wait()
        began = time.perf_counter()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
    return 2 * shape[0] * shape[1] * shape[2] * sum(counts) / seconds / 1e9


def _one_thread_each() -> Any:
    """Hold BLAS, which numpy uses, to the calling thread."""
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")
