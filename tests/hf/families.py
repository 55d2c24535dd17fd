"""Tiny models of every family with random weights in every parameter, all their heads, and batches.

What a head takes follows from its class's name, as in transformers.
"""

import importlib
from dataclasses import dataclass, field

import torch
import transformers
from berts import batch, token_labels
from torch import Tensor
from torch.nn import functional as F

from bigfast.nn import IGNORED

VOCABULARY, WIDTH, LAYERS, HEADS, INNER, POSITIONS = 101, 64, 2, 4, 128, 40
TARGETS = 13  # tokens of a decoder's sequences
_BERT = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS, "initializer_range": 0.1,
}  # fmt: skip
_LLAMA = _BERT | {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# An audio model's frames: 5 samples each.
_AUDIO = _BERT | {
    "conv_dim": (32, 32), "conv_kernel": (5, 1), "conv_stride": (5, 1),
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0,
    "tdnn_dim": (32, 32), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 32,
}  # fmt: skip
_AUDIO_DROPOUTS = (
    "hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout",
    "final_dropout", "layerdrop",
)  # fmt: skip
# Its code book draws at random in training: test_swap_audio.py.
_RANDOM_CODES = ("ForPreTraining",)


@dataclass
class Tiny:
    """A family: transformers' names, and sizes."""

    prefix: str  # of its classes
    sizes: dict = field(default_factory=dict)
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    without: tuple[str, ...] = ()  # heads that are not tested here, and why is said beside them
    left: bool = True  # whether it takes padding on the left
    module: str = ""  # of its classes, where that is another family's

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
    "bart": Tiny(
        "Bart",
        {"vocab_size": VOCABULARY, "d_model": WIDTH, "encoder_layers": LAYERS,
         "decoder_layers": LAYERS, "encoder_attention_heads": HEADS,
         "decoder_attention_heads": HEADS, "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER,
         "max_position_embeddings": POSITIONS, "init_std": 0.1},
        dropouts=("dropout", "attention_dropout", "activation_dropout", "classifier_dropout"),
    ),
    "vit": Tiny("ViT", _BERT | {"image_size": 12, "patch_size": 4, "encoder_stride": 4}),
    "wav2vec2": Tiny("Wav2Vec2", _AUDIO, _AUDIO_DROPOUTS, without=_RANDOM_CODES),
    "wav2vec2_stable": Tiny(
        "Wav2Vec2", _AUDIO | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
        _AUDIO_DROPOUTS, without=_RANDOM_CODES, module="wav2vec2",
    ),
}  # fmt: skip


def stock_module(family: str):
    name = FAMILIES[family].module or family
    return importlib.import_module(f"transformers.models.{name}.modeling_{name}")


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
            # Where a ReLU's input is near 0, rounding decides.
            if name == "pre_classifier" or (name.startswith("tdnn") and name.endswith("kernel")):
                layer.bias.add_(8.0)
    return model.to(dtype).eval()


def labelled(model, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`inputs` with the labels of the model's head, of real tokens where tokens have them."""
    head = type(model).__name__.partition("For")[2] or type(model).__name__
    rows, more = len(inputs[model.main_input_name]), {}
    mask = inputs.get("attention_mask")
    match head:
        case "MaskedLM":
            more["labels"] = token_labels(inputs)
        case "PreTraining" if model.base_model_prefix == "electra":
            more["labels"] = token_labels(inputs, 2).clamp(min=0)
        case "PreTraining":
            pairs = {"albert": "sentence_order_label"}
            more[pairs.get(model.base_model_prefix, "next_sentence_label")] = torch.arange(rows) % 2
            more["labels"] = token_labels(inputs)
        case "CausalLM" | "BertLMHeadModel" | "GPT2LMHeadModel":
            more["labels"] = inputs["input_ids"].where(mask.bool(), IGNORED)
        case "TokenClassification":
            more["labels"] = token_labels(inputs, 2)
        case (
            "SequenceClassification" | "NextSentencePrediction" | "ImageClassification" | "XVector"
        ):
            more["labels"] = torch.arange(rows) % 2
        case "MultipleChoice":
            inputs = {k: torch.stack((x, x.roll(1, 0)), 1) for k, x in inputs.items()}
            more["labels"] = torch.arange(rows) % 2
        case "QuestionAnswering":
            lengths = mask.sum(1)
            more |= {"start_positions": lengths // 4, "end_positions": lengths // 2}
        case "ConditionalGeneration":
            targets = batch("right", rows, TARGETS)
            ids, real = targets["input_ids"], targets["attention_mask"].bool()
            more["labels"] = ids.where(real, IGNORED)
        case "T5Model":
            more["decoder_input_ids"] = batch("none", rows, TARGETS)["input_ids"]
        case "BartModel":
            targets = batch("left", rows, TARGETS)
            more |= {f"decoder_{name}": value for name, value in targets.items()}
        case "MaskedImageModeling":
            patches = model.vit.embeddings.patch_embeddings.num_patches
            more["bool_masked_pos"] = torch.rand(rows, patches) < 0.5
        case "CTC":
            more["labels"] = torch.randint(1, VOCABULARY, (rows, 4))
            more["labels"][::2, 2:] = IGNORED
        case "AudioFrameClassification":
            frames = model._get_feat_extract_output_lengths(mask.shape[1])
            more["labels"] = F.one_hot(torch.randint(0, 2, (rows, frames)), 2)
    return inputs | more


def inputs_for(
    model, padding: str = "right", size: int = 12, seqlen: int = 20
) -> dict[str, Tensor]:
    """A padded batch that fits the model, with labels; ids are pad_token_id at padding alone, and
    where a head looks for eos_token_id it is the last real token alone."""
    if model.main_input_name == "pixel_values":
        side = model.config.image_size
        return labelled(model, {"pixel_values": torch.randn(size, 3, side, side).to(model.dtype)})
    inputs = batch(padding, size, seqlen)
    if model.main_input_name == "input_values":
        mask = inputs["attention_mask"].repeat_interleave(5, 1)  # of samples
        sound = (torch.randn(mask.shape) * mask).to(model.dtype)
        return labelled(model, {"input_values": sound, "attention_mask": mask})
    mask, pad = inputs["attention_mask"].bool(), getattr(model.config, "pad_token_id", None) or 0
    ids = torch.randint(3, VOCABULARY, mask.shape)
    if model.config.is_encoder_decoder:
        last = mask & (mask.flip(1).cumsum(1) == 1).flip(1)
        ids = ids.masked_fill(last, model.config.eos_token_id)
    inputs["input_ids"] = ids.where(mask, pad)
    return labelled(model, inputs)
