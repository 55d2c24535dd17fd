"""Swapping stock transformers modules for fused ones, and back: what all families share.

A swap changes classes, not objects: `module.__class__` becomes a subclass of the stock class with
the same name and the same forward signature. Parameters keep their identity, the state dict its
names; deep copies, hooks, `save_pretrained`, PEFT and `Trainer` see the model they know. (A patched
`instance.forward` would make deep copies compute with the old weights.)

Such a subclass is made from a body, which says what is computed and under which names it finds its
parts, and a stock class: `Family.replace`. Bodies stand in attention.py, embeddings.py, blocks.py,
packing.py and heads.py; a family's file says which stock class gets which body.
"""

import functools
import importlib
import inspect
import types
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import nn

from ..ops import library

# Where stock classes live: the file here that replaces them.
_FILES = (
    "bert", "roberta", "xlm_roberta", "camembert", "electra", "distilbert", "mpnet", "albert",
    "gpt2", "gpt_neo", "opt", "llama", "mistral", "qwen2", "qwen3", "smollm3",
    "modernbert", "deberta_v2", "t5", "bart", "vit", "wav2vec2",
)  # fmt: skip
FAMILIES = {f"transformers.models.{name}.modeling_{name}": f"bigfast.hf.{name}" for name in _FILES}
_TORCH = "torch.nn"  # a family for models of no other
FUSIONS = ("attention", "norm", "mlp", "linear", "embeddings", "loss", "unpad")

WhyNot = Callable[[nn.Module], str | None]


class Body:
    """What a swapped module computes: a mixin before its stock class.

    Methods that stock has too replace stock's, under whose signature they appear; `super()` is
    stock. `names` are the attributes under which a body finds its parts in a module, and a family
    may rename them: `self.at.dense`. `differs` says where results are not stock's.
    """

    names: dict[str, object] = {}
    differs: tuple[str, ...] = ()
    at: types.SimpleNamespace
    swap_family: "Family"
    stock_parameters: tuple[str, ...]  # of stock's forward

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        """Why `module`, stock or swapped, cannot be computed by this body; None where it can."""
        return None

    @classmethod
    def arguments(cls, args: tuple, kwargs: dict) -> dict:
        """The arguments of a call of forward by name. Raises TypeError as the call itself would."""
        named = dict(zip(cls.stock_parameters, args))
        if len(args) > len(named) or named.keys() & kwargs.keys():
            raise TypeError(f"{cls.__name__}.forward() got too many arguments, or one twice")
        return named | kwargs

    def __reduce_ex__(self, protocol):
        """Pickles name the stock class, for which this one passes."""
        _, _, *state = super().__reduce_ex__(protocol)
        return (_revive, (self.swap_family.stock.__name__, stock_class(self)), *state)


def _revive(family: str, stock: type) -> nn.Module:
    return object.__new__(_load(family).rules[stock][1])


class Family:
    """The replacements of one model family: stock class -> (fusion, replacement, why_not).

    Replacements are tried in the order in which they are added. `stock` is the module that the
    stock classes are in; `reads_padding` names its classes whose result depends on the outputs at
    padding, which a packed base model does not compute: the softmax of question answering is over
    all positions, and so these need not be named. `note` is for the report.
    """

    def __init__(
        self, stock: types.ModuleType, reads_padding: tuple[str, ...] = (), note: str = ""
    ) -> None:
        self.stock = stock
        self.note = note
        self.rules: dict[type, tuple[str, type | None, WhyNot]] = {}
        answering = [name for name in vars(stock) if name.endswith("ForQuestionAnswering")]
        self.reads_padding = tuple(getattr(stock, name) for name in (*answering, *reads_padding))
        if stock is not nn:
            from .linear import Linear  # a body, which needs this file

            self.replace(nn.Linear, "linear", Linear)

    def replace(self, stock: str | type, fusion: str, body: type[Body], **names: object) -> None:
        """Swap instances of a stock class, under the flag `fusion`, for `body` with these names."""
        stock = getattr(self.stock, stock) if isinstance(stock, str) else stock
        assert names.keys() <= body.names.keys(), f"{body.__name__} has no {names.keys()}"
        members = {
            # transformers finds output recorders by str(class), and saves the name to config.json.
            **{n: getattr(stock, n) for n in ("__qualname__", "__module__", "__doc__")},
            **{n: _pose(f, getattr(stock, n)) for n, f in _methods(body) if hasattr(stock, n)},
            "at": types.SimpleNamespace(**body.names | names),
            "swap_family": self,
            "stock_parameters": _positional(stock.forward),
            "_bigfast_stock": stock,
        }
        replacement = type(stock.__name__, (body, stock), members)
        replacement._bigfast_class = replacement
        self.rules[stock] = (fusion, replacement, replacement.why_not)

    def keep(self, stock: str, fusion: str, reason: str) -> None:
        """Leave a stock class as it is, and say why in the report of `fusion`."""
        self.rules[getattr(self.stock, stock)] = (fusion, None, lambda module: reason)

    def replaced(self, fusion: str) -> tuple[type, ...]:
        """The stock classes that are replaced under `fusion`."""
        return tuple(stock for stock, (which, *_) in self.rules.items() if which == fusion)


def _positional(function: Callable) -> tuple[str, ...]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def _methods(body: type[Body]) -> Iterable[tuple[str, types.FunctionType]]:
    for cls in reversed(body.__mro__[: body.__mro__.index(Body)]):
        for name, member in vars(cls).items():
            if isinstance(member, types.FunctionType):
                yield name, member


def _pose(function: types.FunctionType, stock: Callable) -> types.FunctionType:
    """A copy of `function` that passes for stock's: Trainer prunes columns by the signature."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    copy.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(copy, stock)


def stock_class(module: nn.Module) -> type | None:
    """The class that a swapped module had; None for any other module, of a derived class too."""
    cls = type(module)
    return cls._bigfast_stock if getattr(cls, "_bigfast_class", None) is cls else None


@dataclass
class SwapReport:
    """What `swap` did.

    swapped: fusion -> names of the modules that are swapped now.
    kept: fusion -> {why it stays stock: names of such modules}.
    differs: where results are not stock's.
    note: what else there is to know.
    """

    model: str
    swapped: dict[str, list[str]] = field(default_factory=dict)
    kept: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
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
        lines += [f"  {'differs':<10} {what}" for what in self.differs]
        return "\n".join(lines)

    __repr__ = __str__


def _count(names: list[str]) -> str:
    return repr(names[0] or "the model") if len(names) == 1 else f"{len(names)} modules"


def _load(stock: str) -> Family:
    file = "bigfast.hf.torch_nn" if stock == _TORCH else FAMILIES[stock]
    return importlib.import_module(file).family


def _families(model: nn.Module) -> list[Family]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    found = {c.__module__: None for m in model.modules() for c in type(m).__mro__}
    families = [_load(name) for name in found if name in FAMILIES]
    if families:
        return families
    plain = _load(_TORCH)
    if any((stock_class(module) or type(module)) in plain.rules for module in model.modules()):
        return [plain]
    raise ValueError(
        f"model: {type(model).__name__} holds no module of {', '.join(sorted(FAMILIES))}, and none "
        f"that is exactly a torch.nn {', '.join(rule.__name__ for rule in plain.rules)}"
    )


def family_of(model: nn.Module) -> Family:
    """The family that the model has classes of, stock, swapped or derived; its outermost. For a
    model of no known family that has layers of torch.nn's: those.

    Raises TypeError for what is not a module, ValueError for a model that holds neither.
    """
    return _families(model)[0]


def swap(
    model: nn.Module,
    *,
    attention: bool = True,
    norm: bool = True,
    mlp: bool = True,
    linear: bool = True,
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
        linear: on the CPU, products of few rows that need no gradient, and those of fp32.
        embeddings: word + position + type + layer norm + dropout in one pass.
        loss: in training with labels, only labelled rows go through the language modelling head,
            and `logits` is None; `model(..., skip_logits=False)` keeps them.
        unpad: padded batches run packed; needs attention. Outputs at padding are zero, and a head
            that averages over them sees that; one on the first token reads the first real one.
            `model(..., packed=True)`, of a base model or a language modelling head, leaves outputs
            packed: (1, T, ...), the rows of `attention_mask.bool()`.

    Returns:
        A report of what was swapped, and why the rest was not.

    Raises TypeError for what is not a module, ValueError for a model with nothing to swap.
    """
    families = _families(model)
    wanted = dict(zip(FUSIONS, (attention, norm, mlp, linear, embeddings, loss, unpad)))
    if library.NATIVE_MISSING is not None:
        warnings.warn(f"bigfast.swap: no CPU kernels: {library.NATIVE_MISSING}", stacklevel=2)
    restore(model)
    report = SwapReport(type(model).__name__, note=families[0].note)
    for family in families:
        _swap(model, family, wanted, report)
    return report


def _swap(model: nn.Module, family: Family, wanted: dict[str, bool], report: SwapReport) -> None:
    padded = {
        child: type(module).__name__
        for module in model.modules()
        if isinstance(module, family.reads_padding)
        for child in module.modules()
    }
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
                report.differs += [w for w in replacement.differs if w not in report.differs]
            else:
                report.kept.setdefault(fusion, {}).setdefault(reason, []).append(name)


def restore(model: nn.Module) -> nn.Module:
    """Give every swapped module of `model` its stock class back, in place; returns `model`."""
    for module in model.modules():
        stock = stock_class(module)
        if stock is not None:
            module.__class__ = stock
    return model
