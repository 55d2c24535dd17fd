"""Tiny models of every family with random weights in every parameter, all their heads, and batches.

What a head takes follows from its class's name, as in transformers.
"""

import importlib
from dataclasses import dataclass, field

import torch
import transformers
from berts import batch, token_labels
from torch import Tensor

from bigfast.nn import IGNORED

VOCABULARY, WIDTH, LAYERS, HEADS, INNER, POSITIONS = 101, 64, 2, 4, 128, 40
_BERT = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS, "initializer_range": 0.1,
}  # fmt: skip
_LLAMA = _BERT | {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass
class Tiny:
    """A family: transformers' names, and sizes."""

    prefix: str  # of its classes
    sizes: dict = field(default_factory=dict)
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    without: tuple[str, ...] = ()  # heads that are not tested here, and why is said beside them
    left: bool = True  # whether it takes padding on the left

    def config(self, **changes):
        sizes = self.sizes | dict.fromkeys(self.dropouts, 0.0) | {"num_labels": 2} | changes
        return getattr(transformers, f"{self.prefix}Config")(**sizes)


FAMILIES = {
    "bert": Tiny("Bert", _BERT),
    "roberta": Tiny("Roberta", _BERT),
    "xlm_roberta": Tiny("XLMRoberta", _BERT),
    "camembert": Tiny("Camembert", _BERT),
    "electra": Tiny("Electra", _BERT | {"embedding_size": 48}),
    "distilbert": Tiny(
        "DistilBert",
        {"vocab_size": VOCABULARY, "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS,
         "hidden_dim": INNER, "max_position_embeddings": POSITIONS, "initializer_range": 0.1},
        dropouts=("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
    ),
    "mpnet": Tiny("MPNet", _BERT),
    "gpt2": Tiny(
        "GPT2",
        {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS,
         "n_positions": POSITIONS, "pad_token_id": 0, "initializer_range": 0.1},
        dropouts=("attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_first_dropout"),
    ),
    "gpt_neo": Tiny(
        "GPTNeo",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": HEADS,
         "attention_types": [[["global", "local"], 1]], "window_size": 5, "pad_token_id": 0,
         "max_position_embeddings": POSITIONS, "initializer_range": 0.1},
        dropouts=("attention_dropout", "embed_dropout", "resid_dropout", "classifier_dropout"),
    ),
    "opt": Tiny(
        "OPT",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
         "num_attention_heads": HEADS, "ffn_dim": INNER, "word_embed_proj_dim": WIDTH,
         "max_position_embeddings": POSITIONS, "init_std": 0.1, "activation_function": "gelu"},
        dropouts=("dropout", "attention_dropout"),
    ),
    "llama": Tiny("Llama", _LLAMA, ("attention_dropout",)),
    "mistral": Tiny("Mistral", _LLAMA | {"sliding_window": 6}, ("attention_dropout",)),
    "qwen2": Tiny(
        "Qwen2",
        _LLAMA | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
        ("attention_dropout",),
    ),
    "qwen3": Tiny("Qwen3", _LLAMA | {"head_dim": 8}, ("attention_dropout",)),
    "smollm3": Tiny("SmolLM3", _LLAMA | {"no_rope_layer_interval": 2}, ("attention_dropout",)),
    "albert": Tiny("Albert", _BERT | {"embedding_size": 48, "hidden_act": "gelu_new"}),
    "modernbert": Tiny(
        "ModernBert",
        {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
         "num_attention_heads": HEADS, "intermediate_size": INNER, "initializer_range": 0.1,
         "max_position_embeddings": POSITIONS, "local_attention": 6, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        dropouts=("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout"),
    ),
    "deberta_v2": Tiny(
        "DebertaV2",
        _BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                 "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 2},
    ),
    "t5": Tiny(
        "T5",
        {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 16, "d_ff": INNER,
         "num_layers": LAYERS, "num_heads": HEADS, "relative_attention_num_buckets": 8,
         "relative_attention_max_distance": 12, "feed_forward_proj": "gated-gelu",
         "decoder_start_token_id": 0},
        dropouts=("dropout_rate", "classifier_dropout"),
    ),
}  # fmt: skip


def stock_module(family: str):
    return importlib.import_module(f"transformers.models.{family}.modeling_{family}")


def heads(family: str) -> list[str]:
    """Every class of the family that is a model, without its prefix."""
    prefix = FAMILIES[family].prefix
    names = [n.removeprefix(prefix) for n in stock_module(family).__all__ if n.startswith(prefix)]
    bases = ("Model", "EncoderModel", "LMHeadModel")
    models = [n for n in names if n.startswith("For") or n in bases]
    return [n for n in models if n not in FAMILIES[family].without]


def make(family: str, head: str, dtype: torch.dtype = torch.float32, **changes):
    """A stock model in eval mode, by default without dropout."""
    tiny = FAMILIES[family]
    config = tiny.config(**changes)
    model = getattr(stock_module(family), tiny.prefix + head)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, layer in model.named_modules():
            if name == "pre_classifier":  # where a ReLU's input is near 0, rounding decides
                layer.bias.add_(8.0)
    return model.to(dtype).eval()


def labelled(model, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`inputs` with the labels of the model's head, of real tokens where tokens have them."""
    head = type(model).__name__.partition("For")[2] or type(model).__name__
    mask, rows = inputs["attention_mask"], len(inputs["input_ids"])
    more = {}
    match head:
        case "MaskedLM":
            more["labels"] = token_labels(inputs)
        case "PreTraining" if model.base_model_prefix == "electra":
            more["labels"] = token_labels(inputs, 2).clamp(min=0)
        case "PreTraining":
            pairs = {"albert": "sentence_order_label"}
            more[pairs.get(model.base_model_prefix, "next_sentence_label")] = torch.arange(rows) % 2
            more["labels"] = token_labels(inputs)
        case "ConditionalGeneration":
            labels = torch.randint(3, VOCABULARY, (rows, 14))
            more["labels"] = labels.where(torch.arange(14) < mask.sum(1, keepdim=True), IGNORED)
        case "T5Model":
            more["decoder_input_ids"] = torch.randint(3, VOCABULARY, (rows, 14))
        case "CausalLM" | "BertLMHeadModel" | "GPT2LMHeadModel":
            more["labels"] = inputs["input_ids"].where(mask.bool(), IGNORED)
        case "TokenClassification":
            more["labels"] = token_labels(inputs, 2)
        case "SequenceClassification":
            more["labels"] = torch.arange(rows) % 2
            if model.config.is_encoder_decoder:  # it reads the last token of this kind
                last = mask.cumsum(1) == mask.sum(1, keepdim=True)
                more["input_ids"] = inputs["input_ids"].masked_fill(
                    last & mask.bool(), model.config.eos_token_id
                )
        case "NextSentencePrediction":
            more["labels"] = torch.arange(rows) % 2
        case "MultipleChoice":
            inputs = {k: torch.stack((x, x.roll(1, 0)), 1) for k, x in inputs.items()}
            more["labels"] = torch.arange(rows) % 2
        case "QuestionAnswering":
            lengths = mask.sum(1)
            more |= {"start_positions": lengths // 4, "end_positions": lengths // 2}
    return inputs | more


def inputs_for(
    model, padding: str = "right", size: int = 12, seqlen: int = 20
) -> dict[str, Tensor]:
    """A padded batch that fits the model, with labels; ids are pad_token_id at padding alone."""
    inputs = batch(padding, size, seqlen)
    mask, pad = inputs["attention_mask"].bool(), getattr(model.config, "pad_token_id", None) or 0
    ids = torch.randint(3, VOCABULARY, mask.shape)
    inputs["input_ids"] = ids.where(mask, pad)
    return labelled(model, inputs)
