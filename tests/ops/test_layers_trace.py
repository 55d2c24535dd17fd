"""torch.compile(fullgraph=True) of the models' layers traces what would run on a GPU without one.

Without CUDA torch aborts where autograd meets a CUDA tensor, fake as it is: gradients are traced
there on CPU tensors, for which Triton is forced. Fakes know shapes and dtypes alone.
"""

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from bigfast.models.bert import BertConfig, BertLayer
from bigfast.models.gpt import GPTBlock, GPTConfig
from bigfast.nn import Layout
from bigfast.ops import backend

pytest.importorskip("triton")

BERT = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
GPT = {"n_embd": 64, "n_head": 2}
LLAMA = GPT | {"mlp": "swiglu", "norm": "rms_norm"}
LAYERS = {
    "bert": (lambda: BertLayer(BertConfig(**BERT)), {"attention", "layer_norm", "bias_gelu"}),
    "gpt": (lambda: GPTBlock(GPTConfig(**GPT), 1, None), {"attention", "layer_norm", "bias_gelu"}),
    "llama": (lambda: GPTBlock(GPTConfig(**LLAMA), 1, None), {"attention", "rms_norm", "swiglu"}),
}


class Graphs:
    """A backend for torch.compile that notes which of our ops the graphs call."""

    def __init__(self):
        self.forward, self.backward = set(), set()
        self.compile = aot_autograd(
            fw_compiler=lambda graph, _: self.note(graph, self.forward),
            bw_compiler=lambda graph, _: self.note(graph, self.backward),
        )

    def note(self, graph, into):
        names = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
        into |= {name.split(".")[1] for name in names if name.startswith("bigfast.")}
        return graph


def trace(layer: nn.Module, device: str, grad: bool) -> Graphs:
    """One packed step of the layer in bf16, dropout on, on fake tensors."""
    graphs = Graphs()
    options = {"device": device, "dtype": torch.bfloat16, "requires_grad": grad}
    values = {name: torch.empty(p.shape, **options) for name, p in layer.named_parameters()}
    x, residual = torch.empty(9, 64, **options), torch.empty(9, 64, **options)
    ends, rows = (torch.empty(n, dtype=torch.int32, device=device) for n in (3, 9))
    layout = Layout(ends, rows, rows)
    streams = (x,) if isinstance(layer, BertLayer) else (x, residual)
    call = lambda values, *inputs: functional_call(layer, values, inputs)
    y = torch.compile(call, fullgraph=True, backend=graphs.compile)(values, *streams, layout)
    y = y if isinstance(y, torch.Tensor) else y[0]
    assert y.shape == x.shape and y.device == x.device and y.dtype == x.dtype
    if grad:
        y.sum().backward()
        assert all(v.grad is not None and v.grad.shape == v.shape for v in values.values())
    return graphs


@pytest.mark.parametrize("name", LAYERS)
def test_on_cuda_tensors(name):
    make, ops = LAYERS[name]
    grad = torch.cuda.is_available()
    layer = make()
    with FakeTensorMode():
        graphs = trace(layer, "cuda", grad)
    assert graphs.forward >= {f"{op}_fwd" for op in ops}
    assert not grad or graphs.backward >= {f"{op}_bwd" for op in ops}


@pytest.mark.parametrize("name", LAYERS)
def test_with_gradients(name):
    make, ops = LAYERS[name]
    layer = make()
    with FakeTensorMode(), backend("triton"):
        graphs = trace(layer, "cpu", True)
    assert graphs.forward >= {f"{op}_fwd" for op in ops}
    assert graphs.backward >= {f"{op}_bwd" for op in ops}
