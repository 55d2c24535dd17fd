"""Text in, text out."""

import pytest
import torch
from test_tasks import gpt

from bigfast.tasks import GenerateConfig, continue_text


@pytest.fixture
def model(gpt_data):
    return gpt(gpt_data).eval()


def test_the_seed_decides(model, gpt_data):
    text = lambda seed: continue_text(
        model, gpt_data.tokenizer, ["the cat", "a"], GenerateConfig(max_new_tokens=12, seed=seed)
    )
    assert text(1) == text(1)
    assert text(1) != text(2)


def test_goes_on_beyond_the_context(model, gpt_data):
    """Three contexts long (32 positions); the end-of-text token is made impossible."""
    end = gpt_data.tokenizer.id("eos")
    forward = model.lm_head.forward

    def never_end(x):
        logits = forward(x)
        logits[..., end] = -torch.inf
        return logits

    model.lm_head.forward = never_end
    texts = continue_text(
        model, gpt_data.tokenizer, ["the cat", "", "a" * 70], GenerateConfig(max_new_tokens=96)
    )
    assert [len(text) for text in texts] == [96, 96, 96]


def test_greedy_is_what_the_model_says(model, gpt_data):
    tokenizer = gpt_data.tokenizer
    config = GenerateConfig(max_new_tokens=10, do_sample=False)
    (text,) = continue_text(model, tokenizer, ["the cat"], config)
    ids = torch.tensor([tokenizer.encode("the cat")])
    (expected,) = model.generate(ids, max_new_tokens=10, eos_token_id=tokenizer.id("eos"))
    assert text == tokenizer.decode(expected[ids.shape[1] :].tolist())


def test_bad_settings(model, gpt_data):
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        GenerateConfig(max_new_tokens=0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        continue_text(model, gpt_data.tokenizer, ["a"], GenerateConfig(temperature=0.0))
