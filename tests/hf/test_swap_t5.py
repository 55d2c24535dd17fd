"""T5: its block, both kinds of its MLP, its loss, and generation."""

import copy
from contextlib import nullcontext

import pytest
import torch
from berts import gradients
from families import inputs_for, make
from test_families import verified

import bigfast
from bigfast import ops

HEAD = "ForConditionalGeneration"


def pair(head: str = HEAD, **changes):
    """A stock model and a copy that is swapped."""
    stock = make("t5", head, **changes)
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    return stock, model


@pytest.mark.parametrize(
    "changes",
    [{"tie_word_embeddings": False}, {"feed_forward_proj": "gated-silu"},
     {"feed_forward_proj": "relu"}],
    ids=lambda changes: ",".join(changes),
)  # fmt: skip
@pytest.mark.parametrize("padding", ["right", "left"])
def test_configurations(changes, padding):
    """Without tying, as transformers has it, the weights are tied, and not scaled."""
    report = verified("t5", HEAD, padding=padding, **changes)
    assert report.ok, str(report)


def test_labels_without_logits():
    stock, model = pair()
    stock.train(), model.train()
    inputs = inputs_for(model)
    want, got = stock(**inputs), model(**inputs)
    assert got.logits is None and got.past_key_values is None
    torch.testing.assert_close(got.encoder_last_hidden_state, want.encoder_last_hidden_state)
    kept = model(**inputs, skip_logits=False)
    torch.testing.assert_close(kept.logits, want.logits)
    # Stock takes the argument and ignores it.
    for out in (got, kept, model(**inputs, num_items_in_batch=3)):
        torch.testing.assert_close(out.loss, want.loss)
    # The decoder may be given what it reads.
    inputs["decoder_input_ids"] = inputs["labels"].clamp(min=0).flip(1)
    torch.testing.assert_close(model(**inputs).loss, stock(**inputs).loss)
    encoded = stock.encoder(inputs.pop("input_ids"), inputs["attention_mask"])
    inputs["encoder_outputs"] = (encoded.last_hidden_state,)
    values = model(**inputs, return_dict=False)
    assert isinstance(values, tuple)
    torch.testing.assert_close(values[0], stock(**inputs).loss)


def test_the_tied_table_gets_all_gradients():
    stock, model = pair()
    inputs = inputs_for(model)
    got, want = (gradients(m.train(), **inputs)["shared.weight"] for m in (model, stock))
    assert model.lm_head.weight is model.encoder.embed_tokens.weight
    torch.testing.assert_close(got, want)


def test_generates_the_same():
    stock, model = pair()
    inputs = inputs_for(model)
    del inputs["labels"]
    options = {"max_new_tokens": 8, "num_beams": 2, "do_sample": False}
    with torch.no_grad():
        got, want = (m.generate(**inputs, **options) for m in (model, stock))
    assert torch.equal(got, want)


def test_outputs_of_layers():
    """Their hooks are on the sublayers, which are called then, and stay."""
    stock, model = pair("Model")
    inputs = inputs_for(model)
    for _ in range(2):
        options = {"output_hidden_states": True, "output_attentions": True}
        got, want = (m(**inputs, **options) for m in (model, stock))
        assert list(got) == list(want)
        for name in ("decoder_hidden_states", "encoder_hidden_states", "cross_attentions"):
            for a, b in zip(got[name], want[name], strict=True):
                torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", ["bfloat16", "float16", "autocast", "wide wo"])
def test_dtypes(case):
    """The dtype of the sums is stock's; where that is fp16 stock clamps them."""
    stock = make("t5", "EncoderModel")
    if case in ("bfloat16", "float16"):
        stock.to(getattr(torch, case))
        if case == "float16":
            with torch.no_grad():
                stock.encoder.block[0].layer[0].SelfAttention.o.weight.mul_(3e4)
    elif case == "wide wo":
        stock.half()
        for block in stock.encoder.block:
            block.layer[-1].DenseReluDense.wo.float()
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    inputs = inputs_for(model)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if case == "autocast" else nullcontext()
    with autocast:
        got, want = (m(**inputs).last_hidden_state for m in (model, stock))
    assert got.dtype == want.dtype
    error = (got.float() - want.float()).square().mean().sqrt()
    assert error < 0.05 * want.float().std()


def test_sums_are_fused(monkeypatch):
    """Dropout and sum are in the norm behind them, but for a block's last ones."""
    calls = []
    norm = ops.rms_norm

    def counted(x, weight, **options):
        calls.append(options.get("dropout_p"))
        return norm(x, weight, **options)

    _, model = pair(dropout_rate=0.1)
    monkeypatch.setattr(ops, "rms_norm", counted)
    model.train()(**inputs_for(model))
    blocks, stacks = model.config.num_layers, 2
    assert calls.count(0.1) == 3 * blocks  # one in the encoder's, two in the decoder's
    assert calls.count(None) == 2 * blocks + stacks
