"""Configurations: dataclasses of sizes, read from and written to Hugging Face's config.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

# Keys of any config.json that do not change what is computed here.
_INERT = frozenset({
    "_name_or_path", "architectures", "auto_map", "bos_token_id", "cls_token_id",
    "decoder_start_token_id", "dtype", "eos_token_id", "finetuning_task", "gradient_checkpointing",
    "id2label", "label2id", "output_attentions", "output_hidden_states", "prefix", "return_dict",
    "sep_token_id", "task_specific_params", "tokenizer_class", "torch_dtype",
    "transformers_version", "use_cache", "use_return_dict",
})  # fmt: skip
# Keys of any config.json that would change it, at the values that are computed here.
_FIXED: dict[str, tuple] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "problem_type": (None, "single_label_classification"),
    "pruned_heads": ({},),
}


@dataclass
class ModelConfig:
    """What all configurations share. `extra` keeps the keys of a config.json that change nothing
    here, to be saved again."""

    extra: dict[str, Any] = field(default_factory=dict, kw_only=True, repr=False)

    model_types: ClassVar[tuple[str, ...]]  # that are read; the first is transformers'
    inert: ClassVar[frozenset[str]] = frozenset()
    fixed: ClassVar[dict[str, tuple]] = {}

    @property
    def width(self) -> int:
        """Features of the stream that runs through the layers."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.startswith(("num_", "n_")) and value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """From the keys of a config.json.

        Raises ValueError for keys that are unknown, or that ask for what is not computed here.
        """
        names = {f.name for f in fields(cls)} - {"extra"}
        known = {k: v for k, v in values.items() if k in names}
        rest = {k: v for k, v in values.items() if k not in names and k != "model_type"}
        for key, allowed in (_FIXED | cls.fixed).items():
            if key in rest and rest.pop(key) not in allowed:
                raise ValueError(f"config: {key}={values[key]!r} is not supported, only {allowed}")
        unknown = sorted(set(rest) - _INERT - cls.inert)
        if unknown:
            raise ValueError(f"config: unknown keys {', '.join(unknown)} for {cls.__name__}")
        if "num_labels" in names and "num_labels" not in known and rest.get("id2label"):
            known["num_labels"] = len(rest["id2label"])  # transformers writes the names alone
        return cls(**known, extra=rest)

    def to_dict(self) -> dict[str, Any]:
        """The keys of config.json."""
        values = asdict(self)
        extra = values.pop("extra")
        if "num_labels" in values:
            count = values.pop("num_labels")
            if len(extra.get("id2label") or {}) != count:
                extra["id2label"] = {str(i): f"LABEL_{i}" for i in range(count)}
                extra["label2id"] = {f"LABEL_{i}": i for i in range(count)}
        return extra | values | {"model_type": self.model_types[0]}
