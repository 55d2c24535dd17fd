"""Swapping stock transformers modules for fused ones, and back: what all families share.

A swap changes classes, not objects: `module.__class__` becomes a subclass of the stock class with
the same name and the same forward signature. Parameters keep their identity, the state dict its
names; deep copies, hooks, `save_pretrained`, PEFT and `Trainer` see the model they know. (A patched
`instance.forward` would make deep copies compute with the old weights.)
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from ..ops import library

# Where stock classes live: the file here that replaces them.
FAMILIES = {"transformers.models.bert.modeling_bert": "bigfast.hf.bert"}
FUSIONS = ("attention", "norm", "mlp", "embeddings", "loss", "unpad")

WhyNot = Callable[[nn.Module], str | None]


class Family:
    """The replacements of one model family: stock class -> (fusion, replacement, why_not).

    `why_not(module)` says why a module cannot be replaced, or None. Replacements are tried in the
    order in which they are added. `reads_padding` are the stock classes whose result depends on
    the outputs at padding, which a packed base model does not compute. `note` is for the report.
    """

    def __init__(self, reads_padding: tuple[type, ...] = (), note: str = "") -> None:
        self.rules: dict[type, tuple[str, type, WhyNot]] = {}
        self.reads_padding = reads_padding
        self.note = note

    def replaces(self, stock: type, fusion: str, why_not: WhyNot) -> Callable[[type], type]:
        """Decorator of a subclass of `stock`: makes it pass for `stock`, and adds it."""

        def add(replacement: type) -> type:
            # transformers finds output recorders by str(class), and saves the name to config.json.
            for name in ("__name__", "__qualname__", "__module__", "__doc__"):
                setattr(replacement, name, getattr(stock, name))
            # Trainer prunes the columns of a dataset by the signature.
            functools.update_wrapper(replacement.forward, stock.forward)
            replacement._bigfast_stock = stock
            self.rules[stock] = (fusion, replacement, why_not)
            return replacement

        return add


def stock_class(module: nn.Module) -> type | None:
    """The class that a swapped module had; None for any other module."""
    return type(module).__dict__.get("_bigfast_stock")


@dataclass
class SwapReport:
    """What `swap` did.

    swapped: fusion -> names of the modules that are swapped now.
    kept: fusion -> {why it stays stock: names of such modules}.
    note: what else there is to know.
    """

    model: str
    swapped: dict[str, list[str]] = field(default_factory=dict)
    kept: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        lines = [f"bigfast.swap: {self.model}{self.note and f' ({self.note})'}"]
        for fusion in FUSIONS:
            names, kept = self.swapped.get(fusion, []), self.kept.get(fusion, {})
            if names:
                lines.append(f"  {fusion:<10} {_count(names)} swapped")
            for reason, those in kept.items():
                lines.append(f"  {fusion:<10} {_count(those)} stock: {reason}")
            if not names and not kept:
                lines.append(f"  {fusion:<10} nothing of the kind")
        return "\n".join(lines)

    __repr__ = __str__


def _count(names: list[str]) -> str:
    return repr(names[0] or "the model") if len(names) == 1 else f"{len(names)} modules"


def family_of(model: nn.Module) -> Family:
    """The family that the model has classes of, stock, swapped or derived; for a model of no known
    family that has layers of torch.nn's, those.

    Raises TypeError for what is not a module, ValueError for a model that holds neither.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls.__module__ in FAMILIES:
                return importlib.import_module(FAMILIES[cls.__module__]).family
    plain = importlib.import_module("bigfast.hf.torch_nn").family
    if any((stock_class(module) or type(module)) in plain.rules for module in model.modules()):
        return plain
    raise ValueError(
        f"model: {type(model).__name__} holds no module of {', '.join(sorted(FAMILIES))}, and none "
        f"that is exactly a torch.nn {', '.join(rule.__name__ for rule in plain.rules)}"
    )


def swap(
    model: nn.Module,
    *,
    attention: bool = True,
    norm: bool = True,
    mlp: bool = True,
    embeddings: bool = True,
    loss: bool = True,
    unpad: bool = True,
) -> SwapReport:
    """Make a transformers model, or any module that holds one, run on fused ops; in place. Of any
    other model, exact torch.nn layers are swapped, after a check on random input.

    Outputs, gradients and losses stay within the tolerance policy of stock's (`bigfast.verify`
    measures it), wherever the attention mask is 1. Works before and after PEFT, DDP and
    `torch.compile`; `restore` undoes it. Swapping again leaves what the last call asks for.

    Args:
        attention: fused softmax attention with its dropout.
        norm: dropout + residual add + layer norm in one pass.
        mlp: bias + GELU in one pass.
        embeddings: word + position + type + layer norm + dropout in one pass.
        loss: in training with labels, only labelled rows go through the language modelling head,
            and `logits` is None; `model(..., skip_logits=False)` keeps them.
        unpad: padded batches run packed; needs attention. Outputs at padding are zero, and a head
            that averages over them sees that; one on the first token reads the first real one.

    Returns:
        A report of what was swapped, and why the rest was not.

    Raises TypeError for what is not a module, ValueError for a model with nothing to swap.
    """
    family = family_of(model)
    wanted = dict(zip(FUSIONS, (attention, norm, mlp, embeddings, loss, unpad)))
    if library.NATIVE_MISSING is not None:
        warnings.warn(f"bigfast.swap: no CPU kernels: {library.NATIVE_MISSING}", stacklevel=2)
    restore(model)
    padded = {
        child: type(module).__name__
        for module in model.modules()
        if isinstance(module, family.reads_padding)
        for child in module.modules()
    }
    report = SwapReport(type(model).__name__, note=family.note)
    for stock, (fusion, replacement, why_not) in family.rules.items():
        for name, module in model.named_modules():
            if type(module) is not stock:
                continue
            reason = why_not(module) if wanted[fusion] else "not asked for"
            if fusion == "unpad" and module in padded:
                reason = reason or f"{padded[module]} reads the outputs at padding"
            if reason is None:
                module.__class__ = replacement
                report.swapped.setdefault(fusion, []).append(name)
            else:
                report.kept.setdefault(fusion, {}).setdefault(reason, []).append(name)
    return report


def restore(model: nn.Module) -> nn.Module:
    """Give every swapped module of `model` its stock class back, in place; returns `model`."""
    for module in model.modules():
        stock = stock_class(module)
        if stock is not None:
            module.__class__ = stock
    return model
