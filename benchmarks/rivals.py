"""The one list of rivals: torch eager comes with each case; here is what else there may be.

Every one runs in its best setting that needs no code of ours. One that cannot run here is a row
with the reason.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """torch.compile of `function`, static shapes; what compiled before it is forgotten, so that
    no recompilation limit turns it back into eager code."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def keeping_graphs(kept: bool) -> AbstractContextManager:
    """Around compiling and calling what runs the backward of one forward more than once: compiled
    code may not reuse what the forward saved, then."""
    return config.patch(donated_buffer=False) if kept else nullcontext()


def onnx_runtime(module: nn.Module, *arguments: Tensor) -> Function | None:
    """f(*arguments) -> the module's first output, exported and run by ONNX Runtime on the CPU on as
    many threads as torch; None where it or torch's exporter is not installed."""
    if any(find_spec(name) is None for name in ("onnxruntime", "onnx", "onnxscript")):
        return None
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # the exporter tells what it does not need
        file = Path(folder, "model.onnx")
        torch.onnx.export(module, arguments, file, dynamo=True, verbose=False)
        logging.disable(logging.NOTSET)
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    first = session.get_outputs()[0].name

    def run(*arguments: Tensor) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in zip(names, arguments, strict=True)}
        return torch.from_numpy(session.run([first], feed)[0])

    return run


def liger(name: str, call: Function) -> dict[str, Function]:
    """{"liger": call(that function of Liger's, *arguments)}, where it is installed with a GPU."""
    if not torch.cuda.is_available() or find_spec("liger_kernel") is None:
        return {}
    function = getattr(import_module("liger_kernel.transformers.functional"), name)
    return {"liger": lambda *arguments: call(function, *arguments)}


def flash_attn() -> Function | None:
    """`flash_attn_func`, where flash-attn is installed with a GPU."""
    if not torch.cuda.is_available() or find_spec("flash_attn") is None:
        return None
    return import_module("flash_attn").flash_attn_func


def flex_attention(length: int, causal: bool) -> Function:
    """f(q, k, v, dropout_p) on (B, S, H, D): FlexAttention, compiled; it has no dropout."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    call = compiled(flex_attention)
    before = lambda b, h, query, key: query >= key
    mask = None
    if causal:
        device = torch.get_default_device()
        mask = create_block_mask(before, None, None, length, length, device=device)

    def run(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
        return call(*(t.transpose(1, 2) for t in (q, k, v)), block_mask=mask).transpose(1, 2)

    return run


def varlen_attn(bounds: Tensor, longest: int) -> dict[str, Function]:
    """torch's attention over packed sequences, where this torch has it; it has no dropout."""
    if find_spec("torch.nn.attention.varlen") is None:
        return {}
    call = import_module("torch.nn.attention.varlen").varlen_attn
    return {"varlen_attn": lambda q, k, v, p: call(q, k, v, bounds, bounds, longest, longest)}


def sdpa_backends(attention: Function, *arguments: Any) -> dict[str, Function]:
    """`attention` under each backend of torch's SDPA that takes the arguments, by its name."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {
        "math": SDPBackend.MATH,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
    }

    def forced(backend: SDPBackend) -> Function:
        def run(*arguments: Any) -> Any:
            with sdpa_kernel(backend):
                return attention(*arguments)

        return run

    found = {}
    for name, backend in backends.items():
        with warnings.catch_warnings():  # torch tells why a backend does not serve
            warnings.simplefilter("ignore")
            try:
                forced(backend)(*arguments)
            except RuntimeError:
                continue
        found[name] = forced(backend)
    return found
