"""What people do with models, done with swapped ones, every family: hidden states, attention
weights, checkpointing, dropout, autocast, generation, compilation."""

import re
import warnings

import families
import pytest
import torch
import torch._dynamo.testing
from families import FAMILIES, inputs_for, make
from stock_and_swapped import main_head, pair, real_tokens, unlabelled

import bigfast
from bigfast.ops import library, registry

each_family = pytest.mark.parametrize("family", FAMILIES)
CAUSAL = [f for f in FAMILIES if main_head(f) in ("ForCausalLM", "LMHeadModel")]
native = pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")


def gradients(model, inputs):
    model.zero_grad()
    out = model(**inputs)
    (out.loss if "loss" in out else real_tokens(out[0], inputs).square().mean()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@each_family
def test_hidden_states(family):
    stock, model, _ = pair(family)
    inputs = unlabelled(stock)
    want, got = (m(**inputs, output_hidden_states=True) for m in (stock, model))
    assert list(got) == list(want)
    names = [name for name in want if name.endswith("hidden_states")]
    assert names
    for name in names:
        for x, y in zip(got[name], want[name], strict=True):
            assert x.shape == y.shape
            # A decoder's have its own mask.
            tokens = inputs if not name.startswith("decoder") else {}
            torch.testing.assert_close(*(real_tokens(t, tokens) for t in (x, y)))


@each_family
def test_attention_weights(family):
    """By stock attention, with one warning: ours has no matrix of them."""
    stock, model, report = pair(family)
    for one in (stock, model):
        if one.config._attn_implementation != "eager":
            one.set_attn_implementation("eager")
    inputs = unlabelled(stock)
    want = stock(**inputs, output_attentions=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        got = model(**inputs, output_attentions=True)
    names = [name for name in want if name.endswith("attentions")]
    assert names and list(got) == list(want)
    for name in names:
        for x, y in zip(got[name], want[name], strict=True):
            torch.testing.assert_close(x, y)
    ours = [w for w in said if "attention weights are computed by stock" in str(w.message)]
    assert len(ours) == ("attention" in report.swapped)


@each_family
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(family, reentrant):
    """Dropout falls the same in the second forward pass."""
    model = make(family, main_head(family), **dict.fromkeys(FAMILIES[family].dropouts, 0.1)).train()
    if not model.supports_gradient_checkpointing or (family == "deberta_v2" and reentrant):
        pytest.skip("stock does not either")
    bigfast.swap(model)
    inputs = inputs_for(model)
    if "input_ids" in inputs:  # a hook, as below, with which the embeddings are stock's
        model.enable_input_require_grads()
    torch.manual_seed(1)
    want = gradients(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    torch.manual_seed(1)
    try:
        got = gradients(model, inputs)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=re.escape(str(error))):
            gradients(bigfast.restore(model), inputs)
        pytest.skip("stock cannot either")
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, msg=name)


@each_family
def test_dropout_statistics(family):
    """Each kind of dropout by itself, over many copies of a few sequences: the mean and the spread
    of the outputs are stock's."""
    rows, copies = 2, 300
    head = "Model" if "Model" in families.heads(family) else main_head(family)

    def draw(model, many):
        with torch.no_grad():
            out = real_tokens(model.train()(**many)[0], many).unflatten(0, (copies, -1))
        return out.mean(0), out.std(0)

    def apart(a, b):
        """Squared distance of the means, in units of what chance makes it."""
        error = ((a[1].square() + b[1].square()) / copies).sqrt().clamp(min=1e-6)
        return ((a[0] - b[0]) / error).square().mean()

    for name in FAMILIES[family].dropouts:
        stock, model, _ = pair(family, head, **{name: 0.3})
        inputs = unlabelled(stock, size=rows, seqlen=10)
        many = {k: x.repeat(copies, *[1] * (x.ndim - 1)) for k, x in inputs.items()}
        want, got = draw(stock, many), draw(model, many)
        if not want[1].any():  # a head's dropout, not the base model's
            assert not got[1].any(), name
            continue
        # Where all copies share some of the draws, stock is as far from itself.
        assert (far := apart(want, got)) < 1.6 or far < 2 * apart(want, draw(stock, many)), name
        assert 0.9 < got[1].mean() / want[1].mean() < 1.1, name


@each_family
def test_bf16_autocast(family):
    model = make(family, main_head(family))
    with torch.autocast("cpu", torch.bfloat16):
        report = bigfast.verify(model, inputs_for(model), 5, timed=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_fp16_autocast(family):
    model = make(family, main_head(family))
    with torch.autocast("cpu", torch.float16):
        report = bigfast.verify(model, inputs_for(model), 5, timed=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("family", CAUSAL)
def test_generation(family):
    """The same tokens, greedy and by beams, with the caches of transformers."""
    stock, model, _ = pair(family, **{"eos_token_id": None})
    inputs = unlabelled(stock, "left", size=4, seqlen=12)
    for options in ({}, {"num_beams": 3}, {"use_cache": False}):
        options |= {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        want, got = (one.generate(**inputs, **options) for one in (stock, model))
        assert torch.equal(got, want), options
    if family in ("gpt2", "llama"):
        options |= {"use_cache": True, "cache_implementation": "static"}
        want, got = (one.generate(**inputs, **options) for one in (stock, model))
        assert torch.equal(got, want)


# torch.compile ------------------------------------------------------------------------------------


def layers(model):
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))


@native
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama"])
def test_compiled_layers(family):
    """fullgraph, and batches of any length after the second without compiling again."""
    _, model, _ = pair(family, "Model")
    compiled = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    other = make(family, "Model")
    other.load_state_dict(model.state_dict())
    bigfast.swap(other)
    for layer in layers(other):
        layer.compile(backend=compiled, fullgraph=True)
    for seqlen in (12, 15, 20, 9, 17, 23):
        inputs = unlabelled(model, size=5, seqlen=seqlen)
        want, got = (one.train()(**inputs).last_hidden_state for one in (model, other))
        torch.testing.assert_close(got, want)
        got.square().mean().backward()
    assert compiled.frame_count <= 2 * len(layers(other))


@native
def test_compiled_model():
    """As a whole it breaks where lengths are read; what it computes stays."""
    stock, model, _ = pair("bert")
    inputs = inputs_for(stock)
    compiled = torch.compile(model.train(), backend="eager")
    with registry.watch() as chosen:
        loss = compiled(**inputs).loss
    torch.testing.assert_close(loss, stock(**inputs).loss)
    assert [op for op, *_ in chosen].count("attention") == 2
    loss.backward()
    for (name, p), q in zip(model.named_parameters(), gradients(stock, inputs).values()):
        torch.testing.assert_close(p.grad, q, rtol=1e-3, atol=1e-5, msg=name)
