"""What a swap leaves as it is, every family: parameters, names, hooks, copies, files."""

import copy
import pickle

import pytest
import torch
from families import FAMILIES, inputs_for, make
from stock_and_swapped import main_head, pair, real_tokens, unlabelled
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

import bigfast
from bigfast.hf.swap import FUSIONS, stock_class
from bigfast.nn import linear
from bigfast.ops import registry

each_family = pytest.mark.parametrize("family", FAMILIES)


def parameter_of(model):
    """One to freeze: the first weight of a linear layer's that nothing shares."""
    shared = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    return next(
        name for name, p in model.named_parameters() if p.ndim == 2 and shared.count(id(p)) == 1
    )


@each_family
def test_parameters_and_their_optimizer(family):
    """Made before the swap, an optimizer steps as stock's does."""
    stock = make(family, main_head(family)).train()
    model = copy.deepcopy(stock)
    named = dict(model.named_parameters(remove_duplicate=False))  # tied ones under both names
    frozen = parameter_of(model)
    seen = []
    for one in (stock, model):
        one.get_parameter(frozen).requires_grad_(False)
        one.register_forward_hook(lambda *_, one=one: seen.append(id(one)))
    optimizers = [torch.optim.SGD(one.parameters(), 0.1) for one in (stock, model)]
    before = [list(model.state_dict()), type(model).__name__, str(type(model)), model.dtype]
    bigfast.swap(model)
    after = [list(model.state_dict()), type(model).__name__, str(type(model)), model.dtype]
    assert before == after and model.training
    now = dict(model.named_parameters(remove_duplicate=False))
    assert now.keys() == named.keys() and all(now[name] is p for name, p in named.items())
    storages = [p.untyped_storage().data_ptr() for p in model.parameters()]
    assert len(set(storages)) == len(storages)
    inputs = inputs_for(model)
    kept = model.get_parameter(frozen).clone()
    for one, optimizer in zip((stock, model), optimizers):
        out = one(**inputs)
        (out.loss if "loss" in out else real_tokens(out[0], inputs).square().mean()).backward()
        optimizer.step()
    assert seen == [id(stock), id(model)]  # hooks are called
    assert torch.equal(model.get_parameter(frozen), kept)
    assert model.get_parameter(frozen).grad is None
    for (name, p), q in zip(model.named_parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=name)


@each_family
def test_twice_copies_and_back(family):
    stock, model, report = pair(family)
    inputs = unlabelled(stock)
    want = stock(**inputs)[0]
    types = [type(m) for m in model.modules()]
    again = bigfast.swap(model)
    assert [type(m) for m in model.modules()] == types and str(again) == str(report)
    got = model(**inputs)[0]
    twins = [copy.deepcopy(model)]
    if not any(map(is_parametrized, model.modules())):  # which torch refuses to pickle
        twins.append(pickle.loads(pickle.dumps(model)))
    assert all([type(m) for m in twin.modules()] == types for twin in twins)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(twin(**inputs)[0], got) for twin in twins)  # by parameters of their own
    assert not torch.equal(model(**inputs)[0], got)
    assert bigfast.restore(twins[0]) is twins[0]
    assert torch.equal(twins[0](**inputs)[0], want)  # bit for bit
    assert not any(stock_class(m) for m in twins[0].modules())


@each_family
def test_saved_and_loaded(family, tmp_path):
    stock, model, _ = pair(family)
    model.save_pretrained(tmp_path)
    loaded = type(stock).from_pretrained(tmp_path)
    assert type(loaded) is type(stock) and loaded.config.architectures == [type(stock).__name__]
    state = loaded.state_dict()
    assert all(torch.equal(state[name], x) for name, x in stock.state_dict().items())
    inputs = unlabelled(stock)
    assert torch.equal(loaded(**inputs)[0], stock(**inputs)[0])


@each_family
def test_resized_embeddings(family):
    """After the swap; the head follows the table it is tied to."""
    stock, model, _ = pair(family)
    if stock.main_input_name != "input_ids":
        pytest.skip("it has no table of words")
    size = stock.get_input_embeddings().num_embeddings + 11
    for one in (stock, model):
        torch.manual_seed(3)
        one.resize_token_embeddings(size, mean_resizing=False)
    model.load_state_dict(stock.state_dict())
    inputs = inputs_for(stock)
    new = torch.rand(inputs["input_ids"].shape) < 0.2
    new &= inputs["attention_mask"].bool() & (
        inputs["input_ids"] != (stock.config.eos_token_id or -1)
    )
    inputs["input_ids"] = inputs["input_ids"].masked_fill(new, size - 1)
    losses = []
    for one in (stock, model.train()):
        out = one(**inputs)
        losses.append(out.loss if "loss" in out else real_tokens(out[0], inputs).square().mean())
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0])
    for (name, p), q in zip(model.named_parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert model.get_input_embeddings().weight.grad[size - 1].any()


@each_family
def test_hooks_are_called(family):
    """Also those of modules whose parameters are read otherwise."""
    seen = []
    for model in pair(family)[:2]:
        called = set()
        for name, module in model.named_modules():
            module.register_forward_hook(lambda *_, name=name, called=called: called.add(name))
        inputs = unlabelled(model)
        with torch.no_grad():
            model(**inputs)
        seen.append(called)
    assert seen[0] == seen[1] and len(seen[0]) > 10


@pytest.mark.parametrize("only", FUSIONS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "distilbert"])
def test_one_fusion_alone(family, only):
    stock = make(family, main_head(family)).train()
    model = copy.deepcopy(stock)
    asked = {only, "attention"} if only == "unpad" else {only}
    report = bigfast.swap(model, **{fusion: fusion in asked for fusion in FUSIONS})
    assert set(report.swapped) <= asked
    assert (only in report.swapped) or "nothing of the kind" in str(report)
    not_asked = {fusion for fusion, kept in report.kept.items() if "not asked for" in kept}
    assert not_asked and not not_asked & asked
    inputs = inputs_for(stock)
    got, want = model(**inputs), stock(**inputs)
    torch.testing.assert_close(got.loss, want.loss)
    assert (got.logits is None) == (only == "loss")


@pytest.mark.parametrize("family", ["bert", "llama", "opt"])
def test_few_rows_read_weights_once(family, monkeypatch):
    """Linear layers of one sentence that needs no gradient, wherever they are called."""
    monkeypatch.setattr(linear, "FASTER_IN_FP32", False)
    monkeypatch.setattr(linear, "WORTH_A_CALL", 0)
    stock, model, report = pair(family)
    assert len(report.swapped["linear"]) == sum(type(m) is nn.Linear for m in stock.modules())
    inputs = {name: x[:1] for name, x in unlabelled(stock).items()}

    def asked(grad: bool) -> int:
        with registry.watch() as choices, torch.set_grad_enabled(grad):
            torch.testing.assert_close(model(**inputs)[0], stock(**inputs)[0])
        return [op for op, _, _ in choices].count("linear")

    assert asked(grad=False) >= 12 and asked(grad=True) == 0


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama", "t5", "modernbert"])
def test_linear_layers_in_training(family, monkeypatch):
    """Each of them by our kernel, as on AMD's processors where weights are large enough."""
    monkeypatch.setattr(linear, "FASTER_IN_FP32", True)
    monkeypatch.setattr(linear, "WORTH_A_CALL", 0)
    model = make(family, main_head(family))
    with registry.watch() as choices:
        report = bigfast.verify(model, inputs_for(model), timed=False)
    assert report.ok, str(report)
    assert "linear" in {op for op, _, _ in choices}
