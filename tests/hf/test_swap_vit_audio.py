"""Swapped models of images and sound: what is packed, what stays as it is, what goes to stock."""

import copy
from contextlib import nullcontext

import families
import numpy as np
import pytest
import torch
from berts import gradients
from check import check
from families import inputs_for, make

import bigfast
from bigfast import ops
from bigfast.ops import library, registry

AUDIO = ["wav2vec2", "wav2vec2_stable"]
_DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout")

native = pytest.mark.skipif(library.NATIVE_MISSING is not None, reason="not built")


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    """Where nothing is built, a swap is tested on the references."""
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


def pair(family, head, **changes):
    """A stock model and its swapped copy."""
    stock = make(family, head, **changes)
    model = copy.deepcopy(stock)
    bigfast.swap(model)
    return stock, model


def attended(model, inputs):
    """Of each attention: how many queries there are, and whether they are packed."""
    with registry.watch() as seen:
        model(**inputs)
    calls = [args[0] for op, _, args in seen if op == "attention"]
    return [(call.q.shape[:-2].numel(), call.packed) for call in calls]


# Sound --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["Model", "ForCTC", "ForSequenceClassification", "ForXVector"])
@pytest.mark.parametrize("family", AUDIO)
def test_trains_on_real_frames(family, head):
    stock, model = pair(family, head)
    inputs = inputs_for(model)
    frames = int(model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(1)).sum())
    assert attended(model.train(), inputs) == [(frames, True)] * 2
    inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    assert attended(model, inputs) == [(240, False)] * 2
    unpacked = bigfast.swap(copy.deepcopy(stock), unpad=False)
    assert "unpad" not in unpacked.swapped


@pytest.mark.parametrize("family", AUDIO)
def test_transcripts_of_padding_are_stocks(family):
    stock, model = pair(family, "ForCTC")
    inputs = inputs_for(model)
    torch.testing.assert_close(model(**inputs).logits, stock(**inputs).logits)


@pytest.mark.parametrize("family", AUDIO)
def test_hidden_states_and_attentions(family):
    stock, model = pair(family, "Model", attn_implementation="eager")
    inputs = inputs_for(model)
    frames = model._get_feature_vector_attention_mask(20, inputs["attention_mask"])
    out, plain = (m.train()(**inputs, output_hidden_states=True) for m in (model, stock))
    assert list(out) == list(plain) and len(out.hidden_states) == 3
    for ours, theirs in zip(out.hidden_states, plain.hidden_states):
        torch.testing.assert_close(ours[frames], theirs[frames])
    chosen = model(**inputs, output_hidden_states=[1]).hidden_states
    assert chosen[0] is None and torch.equal(chosen[1], out.hidden_states[2])
    values = model(**inputs, return_dict=False)
    assert isinstance(values, tuple) and torch.equal(values[0], out.last_hidden_state)
    out, plain = (m(**inputs, output_attentions=True) for m in (model, stock))
    torch.testing.assert_close(out.attentions, plain.attentions)


@pytest.mark.parametrize("family", AUDIO)
def test_weighted_sum_of_layers(family):
    model = make(family, "ForSequenceClassification", use_weighted_layer_sum=True)
    report = bigfast.verify(model, inputs_for(model), steps=10)
    assert report.ok, str(report)


def test_what_reads_padding_is_not_packed():
    report = bigfast.swap(make("wav2vec2", "ForAudioFrameClassification"))
    assert "reads the outputs at padding" in next(iter(report.kept["unpad"]))
    model = make("wav2vec2", "Model", add_adapter=True)
    report = bigfast.swap(model)
    assert next(iter(report.kept["unpad"])).startswith("the adapter's convolutions")
    report = bigfast.verify(model, inputs_for(model), steps=10)
    assert report.ok, str(report)


def test_adapters_in_layers_stay_stock():
    stock, model = pair("wav2vec2_stable", "ForCTC", adapter_attn_dim=8)
    assert bigfast.swap(model).kept["norm"].keys() == {"adapter_layer is set"}
    inputs = inputs_for(model)
    torch.testing.assert_close(model.train()(**inputs).loss, stock.train()(**inputs).loss)


@pytest.mark.parametrize("family", AUDIO)
def test_layers_are_left_out(family):
    stock, model = pair(family, "ForCTC", layerdrop=1.0)
    inputs = inputs_for(model)
    kept, dropped = model(**inputs).loss, model.train()(**inputs).loss
    torch.testing.assert_close(dropped, stock.train()(**inputs).loss)
    assert not torch.allclose(dropped, kept)


@pytest.mark.parametrize("family", AUDIO)
def test_pretraining(family, monkeypatch):
    """Its loss, with masked frames and the same codes for all: they are drawn."""
    draw = torch.nn.functional.gumbel_softmax

    def draw_alike(*args, **kwargs):
        torch.manual_seed(5)
        return draw(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", draw_alike)
    changes = {"mask_time_prob": 0.3, "num_codevectors_per_group": 8, "codevector_dim": 16}
    stock, model = pair(family, "ForPreTraining", proj_codevector_dim=16, **changes)
    inputs = inputs_for(model)
    lengths = model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(1))
    masked = torch.arange(20) % 3 < 2
    masked = masked & (torch.arange(20) < lengths[:, None])
    sequence = 20 * torch.arange(12)[:, None, None]
    others = (torch.rand(12, 20, 5) * lengths[:, None, None]).long()
    inputs |= {"mask_time_indices": masked, "sampled_negative_indices": sequence + others}

    def run(model, inputs):
        return model.train()(**inputs).loss.detach(), gradients(model, **inputs)

    wide = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    ours, plain, truth = run(model, inputs), run(stock, inputs), run(stock.double(), wide)
    check(ours[0], plain[0], truth[0], "loss")
    names = [f"wav2vec2.encoder.layers.{i}.feed_forward.output_dense.weight" for i in (0, 1)]
    check(*(torch.stack([found[1][n] for n in names]) for found in (ours, plain, truth)))


def test_masked_features():
    stock, model = pair(
        "wav2vec2", "ForCTC", mask_time_prob=0.5, mask_time_length=2, mask_feature_prob=0.2,
        mask_feature_length=4,
    )  # fmt: skip
    inputs = inputs_for(model)
    losses = []
    for m in (model, stock):
        np.random.seed(1)
        losses.append(m.train()(**inputs).loss)
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("family", AUDIO)
def test_dropout_statistics(family):
    """Means and spreads of a swapped model's losses are those of stock's."""
    stock, model = pair(family, "ForSequenceClassification", **dict.fromkeys(_DROPOUTS, 0.2))
    inputs, runs = inputs_for(stock), 200
    with torch.no_grad():
        theirs, ours = (
            torch.stack([m.train()(**inputs).loss for _ in range(runs)]) for m in (stock, model)
        )
    error = (theirs.var() / runs + ours.var() / runs).sqrt()
    assert (theirs.mean() - ours.mean()).abs() < 4 * error
    assert 0.75 < ours.std() / theirs.std() < 1.33


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    _, model = pair("wav2vec2", "ForCTC")
    inputs = inputs_for(model)
    want = gradients(model.train(), **inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for name, gradient in gradients(model, **inputs).items():
        torch.testing.assert_close(gradient, want[name])


# Images -------------------------------------------------------------------------------------------


def test_an_images_other_calls_equal_stock():
    stock, model = pair("vit", "Model", attn_implementation="eager")
    images = inputs_for(model)
    with pytest.warns(UserWarning, match="output_attentions"):
        out = model(**images, output_attentions=True, output_hidden_states=True)
    plain = stock(**images, output_attentions=True, output_hidden_states=True)
    assert list(out) == list(plain)
    for kind in ("hidden_states", "attentions"):
        torch.testing.assert_close(out[kind], plain[kind])
    mask = torch.rand(12, 10) < 0.7
    mask[:, 0] = True
    larger = {"pixel_values": torch.randn(2, 3, 16, 16), "interpolate_pos_encoding": True}
    for inputs in (images | {"attention_mask": mask}, larger):
        torch.testing.assert_close(
            model(**inputs).last_hidden_state, stock(**inputs).last_hidden_state
        )


def test_an_images_hooks_and_adapters_are_called():
    peft = pytest.importorskip("peft")
    stock, model = pair("vit", "ForImageClassification")
    config = peft.LoraConfig(target_modules=["q_proj", "fc1", "fc2"], init_lora_weights=False)
    inputs, calls = inputs_for(stock), []
    adapted, plain = (peft.get_peft_model(copy.deepcopy(m), config) for m in (model, stock))
    adapted.load_state_dict(plain.state_dict())
    torch.testing.assert_close(adapted.train()(**inputs).loss, plain.train()(**inputs).loss)
    for layer in model.vit.layers:
        for name in ("dropout", "layernorm_before", "mlp.activation_fn"):
            layer.get_submodule(name).register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(model.train()(**inputs).loss, stock.train()(**inputs).loss)
    assert len(calls) == 2 * (2 + 1 + 1)  # dropout stands twice in a layer


# Both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "head", "where"),
    [
        ("vit", "ForImageClassification", "hidden_dropout_prob"),
        ("vit", "ForImageClassification", "attention_probs_dropout_prob"),
        *(
            (f, "ForCTC", f"{n}_dropout")
            for f in AUDIO
            for n in ("hidden", "attention", "activation")
        ),
    ],
)
def test_dropout_of_everything(family, head, where):
    """Where all is dropped there is no chance: each dropout is where it is in stock."""
    stock, model = pair(family, head, **{where: 1.0})
    for m in (stock, model):
        before = m.vit.embeddings if family == "vit" else m.wav2vec2.encoder
        before.dropout.p = 0.0
    inputs = inputs_for(stock)
    kept, dropped = model(**inputs).loss, model.train()(**inputs).loss
    torch.testing.assert_close(dropped, stock.train()(**inputs).loss)
    assert not torch.allclose(dropped, kept)


@pytest.mark.parametrize(
    ("family", "head"),
    [(family, head) for family in ("vit", "wav2vec2") for head in families.heads(family)],
)
def test_verify_makes_up_a_batch(family, head):
    report = bigfast.verify(make(family, head), steps=10)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("family", "head", "layer"),
    [
        ("vit", "ForImageClassification", "ViTLayer"),
        ("wav2vec2", "ForCTC", "Wav2Vec2EncoderLayer"),
        ("wav2vec2_stable", "ForCTC", "Wav2Vec2EncoderLayerStableLayerNorm"),
    ],
)
def test_layers_compile_whole(family, head, layer):
    _, model = pair(family, head)
    inputs = inputs_for(model)
    want = model.train()(**inputs).loss
    layers = [module for module in model.modules() if type(module).__name__ == layer]
    for module in layers:
        module.compile(fullgraph=True, backend="eager", dynamic=True)
    assert len(layers) == 2
    torch.testing.assert_close(model(**inputs).loss, want)


# Faults -------------------------------------------------------------------------------------------


@native
@pytest.mark.parametrize("fault", ["scale", "residual"])
@pytest.mark.parametrize(
    ("family", "head"),
    [("vit", "ForImageClassification"), *((family, "ForCTC") for family in AUDIO)],
)
def test_verify_sees_a_fault(family, head, fault, monkeypatch):
    attend, norm = ops.attention, ops.layer_norm
    more = lambda residual: None if residual is None else residual * 1.0001
    faults = {
        "scale": (ops, "attention", lambda *a, scale, **k: attend(*a, scale=1.001 * scale, **k)),
        "residual": (
            ops, "layer_norm",
            lambda *a, residual=None, **k: norm(*a, residual=more(residual), **k),
        ),
    }  # fmt: skip
    monkeypatch.setattr(*faults[fault])
    # What is drawn at random verify turns off.
    chances = {"layerdrop": 0.5, "mask_time_prob": 0.3, "mask_time_length": 2}
    model = make(family, head, **(chances if family in AUDIO else {"hidden_dropout_prob": 0.1}))
    report = bigfast.verify(model, inputs_for(model), steps=2)
    assert not report.ok and max(report.errors["gradients"].values()) > 2
