"""A swapped BART: padding on both sides of the cross attention, generation, what goes to stock."""

import copy
from contextlib import nullcontext

import pytest
import torch
from berts import batch, gradients
from check import check
from families import TARGETS, inputs_for, make

import bigfast
from bigfast import ops
from bigfast.hf import attention, layers
from bigfast.ops import library, registry

SEQ2SEQ = "ForConditionalGeneration"

native = pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    """Where nothing is built, a swap is tested on the references."""
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


def pair(head, **changes):
    """A stock model and its swapped copy."""
    stock = make("bart", head, **changes)
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    return stock, model


def decoder_inputs(padding):
    return {f"decoder_{name}": value for name, value in batch(padding, 12, TARGETS).items()}


def attended(model, inputs):
    """Of each attention: how many queries and keys there are, and whether they are packed."""
    with registry.watch() as seen:
        model(**inputs, use_cache=False)
    calls = [args[0] for op, _, args in seen if op == "attention"]
    return [(call.q.shape[:-2].numel(), call.k.shape[:-2].numel(), call.packed) for call in calls]


@pytest.mark.parametrize("to", ["none", "left", "right", "middle", None])
@pytest.mark.parametrize("of", ["none", "left", "right", "middle", None])
def test_padding_on_both_sides(of, to):
    stock, model = pair("Model", scale_embedding=True)
    inputs = batch(of or "none", 12)
    given = inputs | decoder_inputs(to or "none")
    if of is None:
        del given["attention_mask"]
    if to is None:
        del given["decoder_attention_mask"]
    run = lambda m: m(**given, use_cache=False)
    got, plain, truth = run(model), run(stock), run(stock.double())
    real = given.get("decoder_attention_mask", torch.ones(12, TARGETS)).bool()
    check(*(out.last_hidden_state[real] for out in (got, plain, truth)))
    real = given.get("attention_mask", torch.ones(12, 20)).bool()
    check(*(out.encoder_last_hidden_state[real] for out in (got, plain, truth)))


def test_runs_on_real_tokens():
    _, model = pair("Model")
    inputs = batch("right", 12) | decoder_inputs("left")
    keys = int(inputs["attention_mask"].sum())
    queries = int(inputs["decoder_attention_mask"].sum())
    encoder, own, cross = (keys, keys, True), (queries, queries, True), (queries, keys, True)
    assert attended(model, inputs) == [encoder] * 2 + [own, cross] * 2
    dense = 12 * TARGETS
    del inputs["decoder_attention_mask"]
    own, cross = (dense, dense, False), (dense, keys, True)
    assert attended(model, inputs) == [encoder] * 2 + [own, cross] * 2
    inputs["attention_mask"] = torch.ones(12, 20)
    own, cross = (dense, dense, False), (dense, 240, False)
    assert attended(model, inputs) == [(240, 240, False)] * 2 + [own, cross] * 2


@pytest.mark.parametrize("padding", ["left", "none"])
def test_equals_stock_for_other_padding(padding):
    model = make("bart", SEQ2SEQ)
    report = bigfast.verify(model, inputs_for(model, padding), steps=10)
    assert report.ok, str(report)


@pytest.mark.parametrize("case", ["values", "4d", "decoder 4d", "attentions", "causal"])
def test_other_calls_equal_stock(case):
    stock, model = pair("Model", attn_implementation="eager" if case == "attentions" else "sdpa")
    inputs = batch("right", 12) | decoder_inputs("right") | {"use_cache": False}
    mask, decoder_mask = inputs["attention_mask"], inputs["decoder_attention_mask"]
    if case == "values":
        inputs["attention_mask"] = 3 * mask
    elif case == "4d":
        del inputs["attention_mask"]
        encoded = stock.encoder(inputs["input_ids"], mask)
        seen = mask[:, None, None].bool().expand(12, 1, TARGETS, 20)
        inputs |= {"encoder_outputs": encoded, "attention_mask": seen}
    elif case == "decoder 4d":
        causal = torch.ones(TARGETS, TARGETS, dtype=torch.bool).tril()
        inputs["decoder_attention_mask"] = decoder_mask[:, None, None].bool() & causal
    elif case == "attentions":
        inputs["output_attentions"] = True
    else:
        stock.config.is_causal = model.config.is_causal = False
    out, plain, real = model(**inputs), stock(**inputs), decoder_mask.bool()
    torch.testing.assert_close(out.last_hidden_state[real], plain.last_hidden_state[real])
    if case == "attentions":
        for kind in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
            torch.testing.assert_close(out[kind], plain[kind])


def test_hidden_states():
    stock, model = pair("Model")
    inputs = batch("right", 12) | decoder_inputs("left") | {"use_cache": False}
    out, plain = (m(**inputs, output_hidden_states=True) for m in (model, stock))
    assert list(out) == list(plain)
    for kind, mask in (("encoder", "attention_mask"), ("decoder", "decoder_attention_mask")):
        ours, theirs = out[f"{kind}_hidden_states"], plain[f"{kind}_hidden_states"]
        assert len(ours) == len(theirs) == 3
        for o, p in zip(ours, theirs):
            torch.testing.assert_close(o[inputs[mask].bool()], p[inputs[mask].bool()])
    values = model(**inputs, return_dict=False)
    assert isinstance(values, tuple) and torch.equal(values[0], out.last_hidden_state)


def test_packed_by_the_caller():
    """transformers' packing kwargs, with which sources and targets have the same lengths."""
    _, model = pair(SEQ2SEQ)
    inputs = batch("right", 12)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    real, read = mask.bool(), ids.flip(0)
    offsets = torch.cat((torch.zeros(1), real.sum(1).cumsum(0))).int()
    packed = model(
        ids[real][None], decoder_input_ids=read[real][None], cu_seq_lens_q=offsets,
        cu_seq_lens_k=offsets, max_length_q=20, max_length_k=20, use_cache=False,
    )  # fmt: skip
    padded = model(
        **inputs, decoder_input_ids=read, decoder_attention_mask=mask, use_cache=False
    )  # fmt: skip
    torch.testing.assert_close(packed.logits[0], padded.logits[real])


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}])
def test_generates_what_stock_generates(how):
    stock, model = pair(SEQ2SEQ)
    inputs = batch("left", 4)
    made = [m.generate(**inputs, max_new_tokens=8, do_sample=False, **how) for m in (model, stock)]
    assert torch.equal(*made)


def test_the_loss():
    stock, model = pair(SEQ2SEQ)
    for m in (stock, model):
        m.final_logits_bias.copy_(torch.randn(1, 101, generator=torch.Generator().manual_seed(1)))
        m.train()
    inputs = inputs_for(stock)
    got, kept, want = model(**inputs), model(**inputs, skip_logits=False), stock(**inputs)
    assert got.logits is None and got.past_key_values is None
    torch.testing.assert_close(kept.logits, want.logits)
    for out in (got, kept, model.eval()(**inputs, skip_logits=True)):
        torch.testing.assert_close(out.loss, want.loss)
    read = {"decoder_input_ids": torch.randint(3, 101, inputs["labels"].shape)}
    torch.testing.assert_close(
        model(**inputs, **read, skip_logits=True).loss, stock(**inputs, **read).loss
    )
    shared, theirs = (gradients(m.train(), **inputs)["model.shared.weight"] for m in (model, stock))
    torch.testing.assert_close(shared, theirs)


def test_a_decoder_alone_reads_labels_as_they_are():
    stock, model = pair("ForCausalLM")
    inputs = batch("right") | {"labels": torch.randint(0, 101, (8, 20))}
    inputs["encoder_hidden_states"] = torch.randn(8, 9, 64)
    inputs["encoder_attention_mask"] = batch("middle", seqlen=9)["attention_mask"]
    inputs["labels"][inputs["attention_mask"] == 0] = -100
    got, want = model.train()(**inputs), stock.train()(**inputs, use_cache=False)
    assert got.logits is None
    torch.testing.assert_close(got.loss, want.loss)


@pytest.mark.parametrize("flags", [{"mlp": False}, {"norm": False}, {"attention": False}])
def test_flags(flags):
    stock, model = pair(SEQ2SEQ)
    report = bigfast.swap(model, **flags)
    (left_out,) = flags
    assert left_out not in report.swapped and "norm" in report.swapped | flags
    inputs = inputs_for(stock)
    with registry.watch() as seen:
        loss = model.train()(**inputs).loss
    used = {op for op, *_ in seen}
    name = {"mlp": "bias_gelu", "norm": "layer_norm", "attention": "attention"}[left_out]
    assert name not in used and len(used & {"bias_gelu", "layer_norm", "attention"}) == 2
    torch.testing.assert_close(loss, stock.train()(**inputs).loss)


def test_the_bias_goes_with_the_gelu():
    _, model = pair("Model")
    with registry.watch() as seen:
        model(**batch("right"))
    biases = [args[1] for op, _, args in seen if op == "bias_gelu"]
    assert len(biases) == 4 and all(bias is not None for bias in biases)


def test_hooks_and_adapters_are_called():
    peft = pytest.importorskip("peft")
    stock, model = pair(SEQ2SEQ)
    config = peft.LoraConfig(
        target_modules=["q_proj", "fc1", "out_proj"], init_lora_weights=False, lora_dropout=0.0
    )
    inputs, calls = inputs_for(stock), []
    adapted, plain = (peft.get_peft_model(copy.deepcopy(m), config) for m in (model, stock))
    adapted.load_state_dict(plain.state_dict())
    torch.testing.assert_close(adapted.train()(**inputs).loss, plain.train()(**inputs).loss)
    for layer in model.model.decoder.layers:
        for name in ("activation_fn", "encoder_attn_layer_norm"):
            layer.get_submodule(name).register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(model.train()(**inputs).loss, stock.train()(**inputs).loss)
    assert len(calls) == 4


def test_layers_are_left_out():
    stock, model = pair(SEQ2SEQ, encoder_layerdrop=1.0, decoder_layerdrop=1.0)
    inputs = inputs_for(stock)
    kept = model(**inputs).loss
    dropped = model.train()(**inputs).loss
    torch.testing.assert_close(dropped, stock.train()(**inputs).loss)
    assert not torch.allclose(dropped, kept)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    stock, model = pair(SEQ2SEQ)
    inputs = inputs_for(stock)
    want = gradients(model.train(), **inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again = gradients(model, **inputs)
    assert want.keys() == again.keys()
    for name, gradient in again.items():
        torch.testing.assert_close(gradient, want[name])


@pytest.mark.parametrize("head", [SEQ2SEQ, "ForSequenceClassification"])
def test_verify_makes_up_a_batch(head):
    report = bigfast.verify(make("bart", head), steps=10)
    assert report.ok, str(report)


def test_layers_compile_whole():
    _, model = pair(SEQ2SEQ)
    inputs = inputs_for(model)
    want = model.train()(**inputs).loss
    layers = [*model.model.encoder.layers, *model.model.decoder.layers]
    for layer in layers:
        layer.compile(fullgraph=True, backend="eager", dynamic=True)
    torch.testing.assert_close(model(**inputs).loss, want)


def test_autocast():
    model = make("bart", SEQ2SEQ)
    with torch.autocast("cpu", torch.bfloat16):
        report = bigfast.verify(model, inputs_for(model), steps=10)
    assert report.ok, str(report)


@pytest.mark.parametrize("where", ["dropout", "attention_dropout", "activation_dropout"])
def test_dropout_of_everything(where):
    """Where all is dropped there is no chance: each dropout is where it is in stock."""
    stock, model = pair(SEQ2SEQ, **{where: 1.0})
    for m in (stock.model, model.model):
        m.encoder.dropout = m.decoder.dropout = 0.0  # of embeddings
    inputs = inputs_for(stock)
    kept, dropped = model(**inputs).loss, model.train()(**inputs).loss
    torch.testing.assert_close(dropped, stock.train()(**inputs).loss)
    assert not torch.allclose(dropped, kept)


def test_dropout_statistics():
    """Means and spreads of a swapped model's losses are those of stock's."""
    stock, model = pair(SEQ2SEQ, dropout=0.2, attention_dropout=0.2, activation_dropout=0.2)
    inputs, runs = inputs_for(stock), 200
    with torch.no_grad():
        theirs, ours = (
            torch.stack([m.train()(**inputs).loss for _ in range(runs)]) for m in (stock, model)
        )
    error = (theirs.var() / runs + ours.var() / runs).sqrt()
    assert (theirs.mean() - ours.mean()).abs() < 4 * error
    assert 0.75 < ours.std() / theirs.std() < 1.33


@native
@pytest.mark.parametrize("fault", ["scale", "residual", "keys"])
def test_verify_sees_a_fault(fault, monkeypatch):
    attend, add_and_norm = ops.attention, layers.add_and_norm
    cross = attention.CrossAttention.forward

    def other_keys(self, x, states=None, *args, cu_seq_lens_cross=None, **kwargs):
        if cu_seq_lens_cross is not None:  # each sequence's last key is the next one's first
            queries, keys = cu_seq_lens_cross
            ends = torch.cat((keys[:1], keys[1:-1] - 1, keys[-1:]))
            kwargs["cu_seq_lens_cross"] = queries, ends
        return cross(self, x, states, *args, **kwargs)

    _, model = pair(SEQ2SEQ, dropout=0.1, attention_dropout=0.1)  # which verify turns off
    faults = {
        "scale": (ops, "attention", lambda *a, scale, **k: attend(*a, scale=1.001 * scale, **k)),
        "residual": (
            layers, "add_and_norm", lambda n, x, r, p: add_and_norm(n, x, r * 1.0001, p)
        ),
        "keys": (type(model.model.decoder.layers[0].encoder_attn), "forward", other_keys),
    }  # fmt: skip
    monkeypatch.setattr(*faults[fault])
    report = bigfast.verify(model, inputs_for(model), steps=2)
    assert not report.ok and max(report.errors["gradients"].values()) > 2
