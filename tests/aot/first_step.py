"""What the first training step compiles for an H100, and the CPU time of that with a cold cache.

    python tests/aot/first_step.py              BERT-base and GPT-2, on one core; prints JSON
    python tests/aot/first_step.py FOLDER       with the cache there: a second run finds it warm
    python tests/aot/first_step.py --count      the kernels alone

A step of two layers runs on CPU tensors: forward, backward, norm of the gradients and AdamW, in
bf16 autocast over packed sentences, as the trainer has it. Further layers launch the same kernels.
"""

import json
import os
import sys
import tempfile

os.environ["TRITON_INTERPRET"] = "1"  # so that the launchers serve CPU tensors ...

import torch

import bigfast
from bigfast.models.bert import BertConfig, BertForMaskedLM
from bigfast.models.gpt import GPTConfig, GPTForCausalLM
from bigfast.ops import grad_norm
from bigfast.optim import AdamW

del os.environ["TRITON_INTERPRET"]  # ... of kernels that Triton compiles

import triton
from compile import source
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from bigfast.kernels import launch

ARCHITECTURE = 90
MODELS = {
    "bert-base": lambda: BertForMaskedLM(BertConfig(num_hidden_layers=2)),
    "gpt2": lambda: GPTForCausalLM(GPTConfig(n_layer=2)),
}
found: dict[str, tuple] = {}


def record(kernel, *args, grid, warmup, **kwargs):
    names = [parameter.name for parameter in kernel.params]
    given = dict(zip(names, args)) | kwargs
    options = {name: given.pop(name) for name in list(given) if name not in names}
    made = source(kernel, given)
    key = str((kernel.__name__, kernel.__module__, made.signature, made.constants, options))
    found[key + str(made.attrs)] = (made, options)


def step(model: torch.nn.Module) -> None:
    """Two sentences of 128 and 100 tokens; every seventh token is labelled."""
    ids = torch.randint(1, 30000, (2, 128))
    mask = torch.arange(128) < torch.tensor([[128], [100]])
    labels = ids.where((torch.arange(128) % 7 == 0) & mask, -100)
    optimizer = AdamW(model.parameters(), lr=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
    loss.backward()
    norm = grad_norm([p.grad for p in model.parameters() if p.grad is not None])
    optimizer.step(grad_scale=(1.0 / norm).clamp(max=1.0))


def spent() -> float:
    """Seconds of CPU time so far, with those of ptxas: other work on the machine does not count."""
    return sum(os.times()[:4])


def seconds() -> float:
    """To compile all of them, one after the other."""
    begin = spent()
    for kernel, options in found.values():
        triton.compile(kernel, target=GPUTarget("cuda", ARCHITECTURE, 32), options=options)
    return round(spent() - begin, 1)


if __name__ == "__main__":
    JITFunction.run = record
    launch.architecture = lambda device: f"sm_{ARCHITECTURE}"
    result, (option, *_) = {}, [*sys.argv[1:], ""]
    for name, make in MODELS.items():
        found.clear()
        with bigfast.backend("triton"):
            step(make())
        result[name] = {"kernels": len(found)}
        with tempfile.TemporaryDirectory() as cold:
            triton.knobs.cache.dir = option or cold
            if option != "--count":
                result[name]["seconds"] = seconds()
    print(json.dumps(result))
