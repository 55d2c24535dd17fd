"""attn_implementation="bigfast": what sdpa computes, in families that know nothing of us."""

import copy
from contextlib import nullcontext

import pytest
import torch
import transformers
from check import check
from torch.utils.checkpoint import checkpoint
from transformers import masking_utils

import bigfast
from bigfast.hf import attn_implementation as ours
from bigfast.hf import register_attention
from bigfast.ops import library, registry

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.1,
}  # fmt: skip
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DECODER = SIZES | {"num_key_value_heads": 2, "pad_token_id": 0}
GPT2 = {
    "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "initializer_range": 0.1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES, **NO_DROPOUT),
    "gpt2": transformers.GPT2Config(**GPT2),
    "llama": transformers.LlamaConfig(**DECODER),
    "mistral, window": transformers.MistralConfig(**DECODER, sliding_window=5),
    "modernbert, windows": transformers.ModernBertConfig(
        **SIZES, local_attention=6, global_attn_every_n_layers=2, pad_token_id=0
    ),
}


@pytest.fixture(autouse=True, scope="module")
def _registered():
    register_attention()


@pytest.fixture(autouse=True)
def _serves_without_kernels():
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


def build(config):
    model = transformers.AutoModel.from_config(config, attn_implementation="sdpa")
    return model.eval()


def run(model, inputs, real):
    """Outputs at real tokens, and gradients of a projection of them."""
    out = model(**inputs).last_hidden_state[real]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    (out * weights.to(out)).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return out.detach(), gradients


def equals_sdpa(model, inputs, real, served=None):
    """By the policy; `served`: how many calls our op must have had."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("bigfast")
    plain, plain_gradients = run(model, inputs, real)
    with registry.watch() as chosen:
        got, gradients = run(other, inputs, real)
    if served is not None:
        assert sum(op == "attention" for op, *_ in chosen) >= served, "sdpa served it"
    truth, true_gradients = run(copy.deepcopy(model).double(), inputs, real)
    check(got, plain, truth, "outputs")
    for place in {name.partition("layer")[2][-30:] for name in true_gradients}:
        names = [n for n in true_gradients if n.partition("layer")[2][-30:] == place]
        pooled = lambda tensors: torch.cat([tensors[n].flatten() for n in names])  # noqa: B023
        if pooled(true_gradients).abs().max() > 1e-6:  # a key's bias has none
            check(pooled(gradients), pooled(plain_gradients), pooled(true_gradients), place)


def padded(side: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    mask = torch.ones(6, 16, dtype=torch.int64)
    for row, cut in enumerate([0, 3, 7, 1, 12, 5]):
        where = {"right": slice(16 - cut, 16), "left": slice(0, cut), "none": slice(0, 0)}
        mask[row, where.get(side, slice(6, 6 + cut // 2))] = 0
    return {"input_ids": torch.randint(1, 61, (6, 16)), "attention_mask": mask}, mask.bool()


@pytest.mark.parametrize("side", ["none", "right", "left", "middle"])
@pytest.mark.parametrize("family", CONFIGS)
def test_padding(family, side):
    inputs, real = padded(side)
    window = "window" in family and side == "middle"  # windows over gaps are sdpa's
    equals_sdpa(build(CONFIGS[family]), inputs, real, served=0 if window else 2)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral, window"])
def test_packed_by_positions(family):
    lengths = torch.tensor([7, 1, 12, 4])
    positions = torch.cat([torch.arange(n) for n in lengths.tolist()])[None]
    ids = torch.randint(1, 61, positions.shape)
    real = torch.ones_like(ids, dtype=torch.bool)
    model = build(CONFIGS[family])
    # With a cache transformers does not look for packed sequences.
    inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
    equals_sdpa(model, inputs, real, served=2)
    offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0))).int()
    model.set_attn_implementation("bigfast")
    by_positions = model(**inputs).last_hidden_state
    sizes = {"max_length_q": 12, "max_length_k": 12}
    by_offsets = model(**inputs, cu_seq_lens_q=offsets, cu_seq_lens_k=offsets, **sizes)
    assert torch.equal(by_offsets.last_hidden_state, by_positions)


def test_packed_encoder():
    """sdpa does not look at the offsets: the truth is each sequence by itself."""
    model = build(CONFIGS["bert"])
    inputs, real = padded("right")
    alone = model(**inputs).last_hidden_state[real]
    model.set_attn_implementation("bigfast")
    offsets = torch.cat((torch.zeros(1), real.sum(1).cumsum(0))).int()
    packed = model(
        inputs["input_ids"][real][None], position_ids=torch.arange(16).expand(6, 16)[real][None],
        cu_seq_lens_q=offsets, cu_seq_lens_k=offsets, max_length_q=16, max_length_k=16,
    )  # fmt: skip
    torch.testing.assert_close(packed.last_hidden_state[0], alone)


def test_a_vision_model():
    config = transformers.ViTConfig(
        **{k: v for k, v in SIZES.items() if k[0] not in "vm"}, image_size=16, patch_size=4,
        **NO_DROPOUT,
    )  # fmt: skip
    pixels = {"pixel_values": torch.randn(3, 3, 16, 16)}
    equals_sdpa(build(config), pixels, torch.ones(3, 17, dtype=torch.bool), served=2)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_encoder_and_decoder(kind):
    """Cross attention, and T5's position bias, which is sdpa's."""
    if kind == "bart":
        config = transformers.BartConfig(
            vocab_size=61, d_model=32, encoder_layers=1, decoder_layers=1, dropout=0.0,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=32,
            decoder_ffn_dim=32, max_position_embeddings=64, init_std=0.1,
        )  # fmt: skip
    else:
        config = transformers.T5Config(
            vocab_size=61, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, dropout_rate=0.0
        )
    inputs, _ = padded("right")
    targets, real = padded("right")
    inputs["decoder_input_ids"] = targets["input_ids"]
    inputs["decoder_attention_mask"] = targets["attention_mask"]
    equals_sdpa(build(config), inputs, real, served=3 if kind == "bart" else 0)


def test_masks_of_other_kinds_are_sdpas():
    model, (inputs, real) = build(CONFIGS["bert"]), padded("right")
    other = copy.deepcopy(model)
    other.set_attn_implementation("bigfast")
    for mask in (
        real[:, None, None] & torch.ones(16, 16, dtype=torch.bool).tril(),
        torch.randn(6, 1, 16, 16),
    ):
        inputs["attention_mask"] = mask
        got, want = other(**inputs)[0], model(**inputs)[0]
        assert torch.equal(got, want)


def test_a_mask_that_was_changed_is_sdpas():
    arguments = {"batch_size": 1, "q_length": 6, "kv_length": 6}
    arguments["attention_mask"] = torch.tensor([[1, 1, 1, 1, 0, 0]]).bool()
    query = torch.randn(1, 2, 6, 4)
    mask = ours.make_mask(**arguments)
    assert ours._said_by(mask, query, query) is not None
    assert ours._said_by(mask.detach(), query, query) is not None  # as reentrant checkpointing does
    assert ours._said_by(mask.clone(), query, query) is None
    assert ours._said_by(mask[:, :, :, :5], query, query) is None
    assert ours._said_by(mask, query[:, :, :3], query) is None
    mask[..., 0] = False
    assert ours._said_by(mask, query, query) is None


def test_patterns():
    sliding = masking_utils.sliding_window_causal_mask_function(3)
    assert ours._pattern(sliding) == (True, (2, -1), None)
    both = masking_utils.sliding_window_bidirectional_mask_function(3)
    assert ours._pattern(both) == (False, (3, 3), None)
    for unknown in (
        lambda b, h, q, k: q >= k,
        masking_utils.or_masks(masking_utils.causal_mask_function, sliding),
        masking_utils.chunked_causal_mask_function(4, torch.zeros(1)),
        masking_utils.and_masks(sliding, both),
    ):
        assert ours._pattern(unknown) is None


def test_generation_with_a_cache():
    for family in ("gpt2", "llama", "mistral, window"):
        config = copy.deepcopy(CONFIGS[family])
        config.eos_token_id = None
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        inputs, _ = padded("left")
        options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        want = model.generate(**inputs, **options)
        static = model.generate(**inputs, **options, cache_implementation="static")
        model.set_attn_implementation("bigfast")
        assert torch.equal(model.generate(**inputs, **options), want)
        got = model.generate(**inputs, **options, cache_implementation="static")
        assert torch.equal(got, static)


def test_dropout():
    model = build(transformers.BertConfig(**SIZES, attention_probs_dropout_prob=0.3))
    model.set_attn_implementation("bigfast")
    inputs, _ = padded("right")
    torch.manual_seed(0)
    first = model.train()(**inputs)[0]
    torch.manual_seed(0)
    assert torch.equal(model(**inputs)[0], first)
    assert not torch.equal(model(**inputs)[0], first)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_drops_the_same(reentrant):
    """The mask reaches the second forward as another tensor, and dropout must fall the same."""
    arguments = {"batch_size": 2, "q_length": 6, "kv_length": 6}
    mask = ours.make_mask(
        **arguments, attention_mask=torch.tensor([[1] * 6, [1] * 4 + [0] * 2]) > 0
    )
    q, k, v = (torch.randn(2, 2, 6, 8, requires_grad=True) for _ in range(3))
    attention = lambda q, k, v, m: ours.attend(torch.nn.Module(), q, k, v, m, dropout=0.5)[0]
    torch.manual_seed(0)
    want = torch.autograd.grad(attention(q, k, v, mask).sum(), (q, k, v))
    torch.manual_seed(0)
    checkpoint(attention, q, k, v, mask, use_reentrant=reentrant).sum().backward()
    for got, expected in zip((q, k, v), want):
        assert torch.equal(got.grad, expected)


def test_autocast_and_bf16():
    model = build(CONFIGS["bert"])
    inputs, real = padded("right")
    other = copy.deepcopy(model)
    other.set_attn_implementation("bigfast")
    truth = copy.deepcopy(model).double()(**inputs)[0][real]
    with torch.autocast("cpu", torch.bfloat16):
        check(other(**inputs)[0][real], model(**inputs)[0][real], truth)
    model, other = model.bfloat16(), other.bfloat16()
    check(other(**inputs)[0][real], model(**inputs)[0][real], model.double()(**inputs)[0][real])


def test_compiled():
    model = build(CONFIGS["llama"])
    model.set_attn_implementation("bigfast")
    inputs, real = padded("left")
    want = model(**inputs).last_hidden_state[real]
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(**inputs).last_hidden_state[real], want)


def test_what_lengths_do_not_tell_raises():
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="wants softcap, which attention by length does not"):
        ours.attend(torch.nn.Module(), q, q, q, None, softcap=50.0)
