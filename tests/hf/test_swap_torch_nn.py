"""Models of torch.nn's layers, which no family knows: the same numbers, exact types alone."""

import copy
from contextlib import nullcontext

import pytest
import torch
from check import check
from torch import nn

import bigfast
from bigfast.hf import torch_nn
from bigfast.hf.judge import judge
from bigfast.hf.results import results
from bigfast.hf.swap import stock_class
from bigfast.ops import library, registry

E, H, B, S = 32, 4, 16, 24


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


class Tagger(nn.Module):
    """What people write: an embedding, torch's encoder, a head."""

    def __init__(self, batch_first=True, norm=False, **layer):
        super().__init__()
        self.batch_first = batch_first
        self.words = nn.Embedding(50, E)
        one = nn.TransformerEncoderLayer(
            E, H, 2 * E, batch_first=batch_first, **({"dropout": 0.0} | layer)
        )
        last = nn.LayerNorm(E) if norm else None
        self.encoder = nn.TransformerEncoder(one, 2, last, enable_nested_tensor=False)
        self.head = nn.Linear(E, 3)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, 0.5, 0.3)

    def forward(self, ids, src_key_padding_mask=None, mask=None):
        turn = lambda t: t if self.batch_first else t.transpose(0, 1)
        x = self.encoder(turn(self.words(ids)), mask, src_key_padding_mask)
        return self.head(turn(x))


def batch(side="right"):
    padding = torch.zeros(B, S, dtype=torch.bool)
    for row, cut in enumerate([0, 3, 16, 1, 23, 7, 12, 20] * 2):
        padding[row, slice(S - cut, S) if side == "right" else slice(0, cut)] = True
    return torch.randint(0, 50, (B, S)), padding


def named(ids, padding=None, mask=None):
    given = {"ids": ids, "src_key_padding_mask": padding, "mask": mask}
    return {name: value for name, value in given.items() if value is not None}


def equals_stock(model, *inputs, autocast=False):
    """Outputs, gradients and two steps, judged as `bigfast.verify` does; the report of the swap and
    the ops of a call."""
    swapped, batch = copy.deepcopy(model), named(*inputs)
    report = bigfast.swap(swapped)
    wide = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    truth = results(copy.deepcopy(model).double(), wide, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours, plain = (results(copy.deepcopy(m), batch, 0) for m in (swapped, model))
        with registry.watch() as chosen:
            swapped(**batch)
    errors = judge(ours, [plain], truth, exact=True)
    wrong = {f"{k}: {n}": e for k, found in errors.items() for n, e in found.items() if e > 1}
    assert not wrong, wrong
    return report, [op for op, *_ in chosen]


@pytest.mark.parametrize("layer", [
    {}, {"norm_first": True}, {"activation": "gelu"}, {"batch_first": False}, {"bias": False},
    {"activation": nn.GELU("tanh"), "norm_first": True, "batch_first": False}, {"norm": True},
    {"activation": torch.sigmoid},
], ids=lambda layer: "-".join(layer) or "plain")  # fmt: skip
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_equals_stock(layer, side):
    ids, padding = batch(side)
    model = Tagger(**layer).train()
    report, chosen = equals_stock(model, ids, None if side == "none" else padding)
    assert len(report.swapped["attention"]) == 4 and report.swapped["unpad"] == ["encoder"]
    assert chosen.count("attention") == 2 and chosen.count("pad") == (side != "none")
    assert chosen.count("bias_gelu") == 2 * ("activation" in layer and "gelu" in str(layer).lower())


def test_causal_and_other_masks():
    ids, padding = batch()
    model = Tagger().train()
    causal = nn.Transformer.generate_square_subsequent_mask(S)
    _, chosen = equals_stock(model, ids, None, causal)
    assert chosen.count("attention") == 2
    equals_stock(model, ids, padding, causal.isinf())
    other = torch.rand(S, S) < 0.3
    other.fill_diagonal_(False)
    _, chosen = equals_stock(model, ids, None, other)
    assert "attention" not in chosen


def test_evaluation_and_bf16():
    """Where stock has a fast path of its own, over nested tensors."""
    ids, padding = batch()
    model = Tagger(norm=True).eval()
    model.encoder.use_nested_tensor = True
    for kind in (torch.float32, torch.bfloat16):
        plain = model.to(kind)
        swapped = copy.deepcopy(plain)
        bigfast.swap(swapped)
        with torch.no_grad():
            got, want = (m(ids, padding)[~padding] for m in (swapped, plain))
            truth = copy.deepcopy(plain).double()(ids, padding)[~padding]
        check(got, want, truth)


def test_autocast():
    smooth = {"activation": "gelu"}  # a relu's kink turns the rounding of bf16 into chance
    equals_stock(Tagger(norm_first=True, **smooth).train(), *batch(), autocast=True)
    equals_stock(Tagger(**smooth).train(), *batch(), autocast=True)


@pytest.mark.parametrize("batch_first", [True, False])
def test_cross_attention(batch_first):
    attention = nn.MultiheadAttention(E, H, batch_first=batch_first)
    swapped = copy.deepcopy(attention)
    bigfast.swap(swapped)
    turn = lambda t: t if batch_first else t.transpose(0, 1)
    _, padding = batch()
    q, k, v = torch.randn(B, 4, E), torch.randn(B, S, E), torch.randn(B, S, E)
    for keys, values in ((k, k), (k, v)):
        for hidden in (None, padding, torch.zeros(B, S).masked_fill(padding, float("-inf"))):
            args = {"key_padding_mask": hidden, "need_weights": False}
            call = lambda m, *x, args=args: turn(m(*map(turn, x), **args)[0])
            truth = copy.deepcopy(attention).double()
            wide = dict(args)
            if hidden is not None and hidden.is_floating_point():
                wide["key_padding_mask"] = hidden.double()
            with registry.watch() as chosen:
                got = call(swapped, q, keys, values)
            assert [op for op, *_ in chosen].count("attention") == 1
            want = call(truth, q.double(), keys.double(), values.double(), args=wide)
            check(got, call(attention, q, keys, values), want)
    out, weights = swapped(turn(q), turn(k), turn(k))
    stock_out, stock_weights = attention(turn(q), turn(k), turn(k))
    assert torch.equal(out, stock_out) and torch.equal(weights, stock_weights)
    soft = torch.randn(B, S)
    got, want = (
        m(turn(q), turn(k), turn(k), key_padding_mask=soft, need_weights=False)[0]
        for m in (swapped, attention)
    )
    assert torch.equal(got, want)


def test_norms():
    norms = nn.Sequential(nn.LayerNorm(64), nn.RMSNorm(64, eps=1e-6), nn.RMSNorm(64))
    report = bigfast.swap(copy.deepcopy(norms))
    assert report.swapped == {"norm": ["1"]}
    assert set(report.kept["norm"]) == {
        "outside of a fused layer torch's is as fast in fp32",
        "it normalises several dims, has no weight, or an eps that depends on the dtype",
    }
    norms = norms.bfloat16()
    swapped = copy.deepcopy(norms)
    assert bigfast.swap(swapped).swapped == {"norm": ["0", "1"]}
    x = torch.randn(3000, 64).bfloat16()
    with registry.watch() as chosen:
        got = swapped(x)
    assert [op for op, *_ in chosen] == ["layer_norm", "rms_norm"]
    check(got, norms(x), copy.deepcopy(norms).double()(x.double()))


def test_classes_change_and_come_back():
    ids, padding = batch()
    model = Tagger().train()
    parameters, state = list(model.parameters()), list(model.state_dict())
    before = model(ids, padding)
    report = bigfast.swap(model)
    assert "no known family: exact torch.nn types, each checked on random input" in str(report)
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert list(model.state_dict()) == state
    layer = model.encoder.layers[0]
    assert stock_class(layer) is nn.TransformerEncoderLayer and isinstance(
        layer, stock_class(layer)
    )
    assert type(layer).__qualname__ == "TransformerEncoderLayer"
    types = [type(m) for m in model.modules()]
    bigfast.swap(model)
    assert [type(m) for m in model.modules()] == types
    twin = copy.deepcopy(model)
    assert [type(m) for m in twin.modules()] == types
    assert torch.equal(bigfast.restore(model)(ids, padding), before)
    assert not any(stock_class(m) for m in model.modules())


def test_the_check_leaves_generators_alone():
    model = Tagger()
    state = torch.get_rng_state()
    bigfast.swap(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_stays_stock():
    class Mine(nn.TransformerEncoderLayer):
        def forward(self, src, **masks):
            return super().forward(src, **masks) * 2

    subclassed = nn.TransformerEncoder(Mine(E, H, E, batch_first=True), 1)
    report = bigfast.swap(subclassed)
    assert report.swapped["attention"] == ["layers.0.self_attn"] and "unpad" not in report.swapped
    assert type(subclassed.layers[0]) is Mine

    model = Tagger()
    model.encoder.layers[1].norm1.register_forward_hook(lambda *_: None)
    report = bigfast.swap(model)
    assert "encoder.layers.1" not in report.swapped["attention"]
    assert report.kept["attention"] == {
        "norm1 is no plain torch.nn.LayerNorm without hooks": ["encoder.layers.1"]
    }
    assert "see across packed sequences" in next(iter(report.kept["unpad"]))

    ids, padding = batch()
    model = Tagger().train()
    bigfast.swap(model)
    seen = []
    model.encoder.layers[0].register_forward_hook(lambda *_: seen.append(1))
    model(ids, padding)
    assert seen == [1]  # a hook set later is called too

    with pytest.raises(ValueError, match="none that is exactly a torch"):
        bigfast.swap(nn.Linear(2, 2))


def test_a_module_that_errs_is_kept(monkeypatch):
    wrong = lambda *args, **kwargs: torch_nn.ops.attention_ref(*args, **kwargs) * 1.01
    monkeypatch.setattr(torch_nn.ops, "attention", wrong)
    report = bigfast.swap(Tagger())
    assert not report.swapped and "times the allowed one" in str(report)
    with torch.device("meta"):
        norms = nn.Sequential(nn.RMSNorm(8, eps=1e-6))
    monkeypatch.setattr(registry, "why_no_kernel", lambda *_: None)
    assert "on the meta device nothing can be checked" in str(bigfast.swap(norms))


def test_dropout():
    model = Tagger(dropout=0.3).train()
    ids, padding = batch()
    draw = lambda: torch.stack([model(ids, padding)[~padding].detach() for _ in range(200)])
    plain = draw()
    bigfast.swap(model)
    torch.manual_seed(0)
    ours = draw()
    torch.manual_seed(0)
    assert torch.equal(model(ids, padding)[~padding], ours[0])
    error = ((plain.var(0) + ours.var(0)) / 200).sqrt()
    assert (((plain.mean(0) - ours.mean(0)) / error).square().mean()) < 1.3
    assert 0.8 < float(ours.std(0).mean() / plain.std(0).mean()) < 1.25


def test_verify():
    ids, padding = batch()
    report = bigfast.verify(Tagger(dropout=0.1), {"ids": ids, "src_key_padding_mask": padding})
    assert report.ok, str(report)
    assert set(report.errors) == {"outputs", "gradients", "losses"}
