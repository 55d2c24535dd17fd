import pytest
import torch
from pairs import make, save

from bigfast.models import GPTConfig, GPTForCausalLM

SIZES = {
    "vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256,
    "initializer_range": 0.2,
}  # fmt: skip
MODERN = {"norm": "rms_norm", "position": "rotary", "mlp": "swiglu", "n_kv_head": 2}
SAMPLE = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.95}


def prompts() -> list[torch.Tensor]:
    return [torch.randint(1, 97, (n,)) for n in (3, 11, 1, 7)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def same(a, b) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("settings", [{}, SAMPLE], ids=["greedy", "sampled"])
@pytest.mark.parametrize("changes", [{}, MODERN], ids=["gpt2", "modern"])
def test_cache_changes_no_token(changes, settings):
    model = GPTForCausalLM(GPTConfig(**SIZES, **changes))
    given = prompts()
    with_cache, without = (
        model.generate(
            given, max_new_tokens=200, use_cache=use_cache, generator=seeded(), **settings
        )
        for use_cache in (True, False)
    )
    assert same(with_cache, without)
    assert [len(tokens) for tokens in with_cache] == [203, 211, 201, 207]
    assert all(torch.equal(out[: len(p)], p) for out, p in zip(with_cache, given))
    assert model.training


def test_padded_prompts_equal_a_list():
    model, given = GPTForCausalLM(GPTConfig(**SIZES)), prompts()
    want = model.generate(given, max_new_tokens=9)
    for side in ("left", "right"):
        ids = torch.nn.utils.rnn.pad_sequence(given, batch_first=True, padding_side=side)
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones_like(p) for p in given], batch_first=True, padding_side=side
        )
        assert same(model.generate(ids, mask, max_new_tokens=9), want)


def test_greedy_equals_stock(tmp_path):
    stock = make("GPT2LMHeadModel", initializer_range=0.2).eval()
    model = GPTForCausalLM.from_pretrained(save(stock, tmp_path))
    prompt = torch.randint(1, 97, (1, 5))
    want = stock.generate(prompt, max_new_tokens=30, do_sample=False, pad_token_id=0)
    assert torch.equal(model.generate(prompt, max_new_tokens=30)[0], want[0])


@pytest.mark.parametrize("use_cache", [True, False])
def test_sequences_end_at_eos(use_cache):
    model, given = GPTForCausalLM(GPTConfig(**SIZES)), prompts()
    free = model.generate(given, max_new_tokens=20)
    eos = int(free[0][len(given[0]) + 4])
    for out, want, prompt in zip(
        model.generate(given, max_new_tokens=20, eos_token_id=eos, use_cache=use_cache), free, given
    ):
        ends = (want[len(prompt) :] == eos).nonzero()
        stop = len(want) if len(ends) == 0 else len(prompt) + int(ends[0]) + 1
        assert torch.equal(out, want[:stop])


def test_draws_follow_the_restricted_distribution():
    """top_k and top_p keep just the tokens that they should, in their proportions."""
    model = GPTForCausalLM(GPTConfig(**SIZES)).eval()
    prompt = torch.tensor([5, 6, 7])
    p = model(prompt[None]).logits[0, -1].detach().div(0.7).softmax(0)
    ordered, index = p.sort(descending=True)
    nucleus = index[: int((ordered.cumsum(0) < 0.6).sum()) + 1]
    for settings, kept in (({"top_k": 5}, index[:5]), ({"top_p": 0.6}, nucleus)):
        drawn = model.generate(
            [prompt] * 2000, max_new_tokens=1, do_sample=True, temperature=0.7,
            generator=seeded(), **settings,
        )  # fmt: skip
        share = torch.stack(drawn)[:, -1].bincount(minlength=97) / 2000
        want = torch.zeros(97).index_copy(0, kept, p[kept] / p[kept].sum())
        assert (share[want == 0] == 0).all()
        assert (share - want).abs().max() < 5 * 0.5 / 2000**0.5  # five standard deviations


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_ids": []}, "input_ids has no prompt"),
        ({"input_ids": [torch.tensor([], dtype=torch.long)]}, r"input_ids\[0\] must have one"),
        ({"input_ids": torch.tensor([1])}, r"input_ids must be \(B, S\) or a list"),
        ({"attention_mask": torch.ones(1, 3)}, "attention_mask must have"),
        ({"max_new_tokens": 255}, r"longest prompt \(2\) at most n_positions \(256\); got 255"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"do_sample": True, "temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"do_sample": True, "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"do_sample": True, "top_p": 1.5}, r"top_p must lie in \(0, 1\], got 1.5"),
        ({"top_p": 0.5}, "need do_sample=True"),
    ],
)
def test_bad_input(change, words):
    model = GPTForCausalLM(GPTConfig(**SIZES))
    with pytest.raises(ValueError, match=words):
        model.generate(**({"input_ids": torch.tensor([[1, 2]])} | change))
