"""Models in Hugging Face directories: config.json and model.safetensors, or shards and their index.

Nothing is ever unpickled. Names on disk are transformers'; a model may be read from the checkpoint
of its bare base (`bert.` or `transformer.` prefix absent) and the other way round.
"""

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .config import ModelConfig

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"

Model = TypeVar("Model", bound="PretrainedModel")


def initialise(module: nn.Module, std: float) -> None:
    """Normal(0, std) weights and zero biases of linear layers and embeddings (norms are born so);
    the padding row of an embedding is zero."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


class PretrainedModel(nn.Module):
    """A model with a config, which reads and writes Hugging Face directories."""

    config_class: ClassVar[type[ModelConfig]]
    architecture: ClassVar[str | None] = None  # transformers' class name, where it is another
    base_prefix: ClassVar[str]  # of the base model's parameters in a model with a head
    head_prefixes: ClassVar[tuple[str, ...]]  # a checkpoint may lack these parts, or have others
    ignored_suffixes: ClassVar[tuple[str, ...]]  # buffers that older checkpoints hold
    labelled_parts: ClassVar[tuple[str, ...]] = ()  # the parts that run on labelled rows
    causal: ClassVar[bool]
    tied: dict[str, str] = {}  # parameter: the one that it is

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def tie_weights(self) -> None:
        """Make each parameter of `tied` the one that it is tied to."""
        for name, source in self.tied.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(owner), attribute, self.get_parameter(source))

    @staticmethod
    def convert(name: str, tensor: Tensor) -> Tensor:
        """One parameter between our layout and the file's: its own inverse."""
        return tensor

    @property
    def base_model(self) -> "PretrainedModel":
        """The model without its head: `bert` or `transformer`, or this one."""
        return getattr(self, self.base_prefix[:-1], self)

    def layers(self) -> nn.ModuleList:
        """The layers of a base model."""
        raise NotImplementedError

    @property
    def _prefix(self) -> str:
        """What a checkpoint of a model with a head has before our names."""
        return self.base_prefix if self.base_model is self else ""

    def flops(self, tokens: int, pairs: int, labelled: int = 0) -> float:
        """FLOPs of the matrix products of one forward and backward pass.

            6 (W_layers tokens + W_head labelled) + 12 L N pairs

        W counts the weights of matrices: 2 FLOPs for a multiply and add, and the backward pass
        costs twice the forward. L layers of width N take 4 N FLOPs forward for each pair of a query
        and a key. Norms, biases and activations are left out, as is what runs once a sequence
        beside a head on tokens (pooler, next sentence).

        Args:
            tokens: real tokens, not padding.
            pairs: sum of the squared lengths of the sequences; a causal model needs half of them.
            labelled: items with a label, the rows that the head runs on when training; every token
                where logits are asked for.
        """
        layers = self.base_model.layers()
        weights = lambda part: sum(p.numel() for p in part.parameters() if p.ndim == 2)
        head = sum(weights(self.get_submodule(name)) for name in self.labelled_parts)
        attended = pairs / 2 if self.causal else pairs
        products = weights(layers) * tokens + head * labelled
        return 6.0 * products + 12.0 * len(layers) * self.config.width * attended

    @classmethod
    def from_pretrained(
        cls: type[Model],
        directory: str | os.PathLike,
        *,
        dtype: torch.dtype | None = None,
        **changes: Any,
    ) -> Model:
        """The model of a Hugging Face directory, in eval mode.

        Args:
            directory: holds config.json, and model.safetensors or shards with their index.
            dtype: of the parameters; None keeps the file's.
            changes: config values to change, such as num_labels=3 or hidden_dropout_prob=0.0.

        A head that the checkpoint lacks is initialised anew, and one that this model lacks is left
        out; both are said in a warning. Raises ValueError for any other parameter that is missing,
        unexpected or of another shape, for a config that asks for what is not computed here, and
        where the weights are there as a pickle only.
        """
        directory = Path(directory)
        values = json.loads((directory / "config.json").read_text())
        if values.get("model_type") not in cls.config_class.model_types:
            raise ValueError(
                f"directory: {directory} holds a {values.get('model_type')!r} model, but "
                f"{cls.__name__} reads {' and '.join(cls.config_class.model_types)}"
            )
        config = replace(cls.config_class.from_dict(values), **changes)
        with torch.device("meta"):
            model = cls(config)
        state = model._canonical(_read(directory))
        fresh = model._reconcile(state, directory)
        if fresh:
            model = cls(config)  # for its initial values
        prefix = model._prefix
        state = {
            name.removeprefix(prefix): cls.convert(name, tensor).to(
                dtype or tensor.dtype, copy=True
            )
            for name, tensor in state.items()
        }  # copies: the file's tensors are mapped from it
        model.load_state_dict(state, strict=False, assign=True)
        if fresh and state:
            model.to(dtype or next(iter(state.values())).dtype)
        model.tie_weights()
        return model.eval()

    def _canonical(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The names of a model with a head, without buffers and tied copies."""
        bare = not any(name.startswith(self.base_prefix) for name in state)
        renamed = {}
        for name, tensor in state.items():
            if name.endswith(self.ignored_suffixes):
                continue
            for old, new in ((".gamma", ".weight"), (".beta", ".bias")):  # of TensorFlow's day
                if name.endswith(old):
                    name = name.removesuffix(old) + new
            renamed[self.base_prefix + name if bare else name] = tensor
        for copy, source in self.tied.items():
            if copy in renamed:
                renamed.setdefault(source, renamed.pop(copy))
        return renamed

    def _reconcile(self, state: dict[str, Tensor], directory: Path) -> list[str]:
        """Drop from `state` the heads that the model lacks; the heads that `state` lacks."""
        prefix = self._prefix
        expected = {
            prefix + name: p for name, p in self.state_dict().items() if name not in self.tied
        }
        missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
        fresh = self._heads(missing, absent_from=state)
        dropped = self._heads(unexpected, absent_from=expected)
        for what, names, heads in (("lacks", missing, fresh), ("has unknown", unexpected, dropped)):
            wrong = sorted(name for name in names if not name.startswith(tuple(heads)))
            if wrong:
                raise ValueError(f"directory: {directory} {what} parameters {', '.join(wrong)}")
        for name in unexpected:
            del state[name]
        for name, tensor in state.items():
            shape = self.convert(name, tensor).shape
            if shape != expected[name].shape:
                raise ValueError(
                    f"directory: {directory} has {name} of shape {tuple(shape)}, the config asks "
                    f"for {tuple(expected[name].shape)}"
                )
        if fresh:
            _say(f"{directory} has no {_list(fresh)}: initialised anew, to be trained")
        if dropped:
            _say(f"{directory} has {_list(dropped)}, which {type(self).__name__} does not use")
        return fresh

    def _heads(self, names: Iterable[str], absent_from: Iterable[str]) -> list[str]:
        """The head prefixes that `names` have and `absent_from` does not."""
        return [
            head
            for head in self.head_prefixes
            if any(name.startswith(head) for name in names)
            and not any(name.startswith(head) for name in absent_from)
        ]

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write config.json and model.safetensors into `directory`, which is made where missing;
        transformers reads them. Each file is replaced in one step."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        state = {
            name: self.convert(name, tensor.detach()).contiguous()
            for name, tensor in self.state_dict().items()
            if name not in self.tied
        }
        values = self.config.to_dict() | {
            "architectures": [self.architecture or type(self).__name__],
            "dtype": str(next(self.parameters()).dtype).removeprefix("torch."),
        }
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        _replace(directory / "config.json", lambda path: path.write_text(text))
        save_file = _safetensors().save_file
        _replace(directory / WEIGHTS, lambda path: save_file(state, path, {"format": "pt"}))


def _read(directory: Path) -> dict[str, Tensor]:
    """All tensors of a directory, as they are on disk."""
    load_file = _safetensors().load_file
    if (directory / WEIGHTS).exists():
        return load_file(directory / WEIGHTS)
    if (directory / INDEX).exists():
        names: dict[str, str] = json.loads((directory / INDEX).read_text())["weight_map"]
        state: dict[str, Tensor] = {}
        for shard in sorted(set(names.values())):
            state |= load_file(directory / shard)
        return state
    if (directory / PICKLE).exists():
        raise ValueError(
            f"directory: {directory} has its weights in {PICKLE} alone, a pickle, which can run "
            "any code and is never loaded; where you trust it, let transformers rewrite it: "
            f"AutoModel.from_pretrained({str(directory)!r}).save_pretrained(...)"
        )
    raise FileNotFoundError(f"directory: {directory} has neither {WEIGHTS} nor {INDEX}")


def _safetensors():
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "Hugging Face directories need safetensors: pip install 'bigfast[hf]'"
        ) from error
    return safetensors.torch


def _replace(path: Path, write) -> None:
    """Write beside `path`, then rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    os.replace(temporary, path)


def _list(prefixes: Iterable[str]) -> str:
    return ", ".join(prefix.removesuffix(".") for prefix in prefixes)


def _say(message: str) -> None:
    warnings.warn(message, stacklevel=4)
