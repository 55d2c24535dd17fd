import pytest
import torch
from check import check
from pairs import BACKENDS, GPT2, MODES, batch, check_pair, make, save, token_labels
from torch.utils.flop_counter import FlopCounterMode

from bigfast import ops
from bigfast.models import GPT, GPTConfig, GPTForCausalLM

SIZES = {key: value for key, value in GPT2.items() if not key.endswith("token_id")}
MODERN = {"norm": "rms_norm", "position": "rotary", "mlp": "swiglu", "n_kv_head": 2}


def config(**changes) -> GPTConfig:
    return GPTConfig(**(SIZES | changes))


@pytest.mark.parametrize("skip_logits", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
def test_causal_lm_equals_stock(tmp_path, mode, backend, skip_logits):
    def make_inputs():
        inputs = batch(6, 20)
        real = inputs["attention_mask"].bool()
        return inputs | {"labels": inputs["input_ids"].where(real, -100)}

    def run(model, ours, inputs):
        out = model(**inputs, **({"skip_logits": skip_logits} if ours else {}))
        assert not ours or (out.logits is None) == skip_logits
        return [] if skip_logits else [out.logits[inputs["attention_mask"].bool()]], out.loss

    check_pair(GPTForCausalLM, make("GPT2LMHeadModel"), tmp_path, mode, backend, make_inputs, run)


@pytest.mark.parametrize("padding", ["none", "left", "right", "middle"])
def test_padding_may_lie_anywhere(tmp_path, padding):
    def make_inputs():
        inputs = batch(5, 18, padding)
        return inputs | {"labels": token_labels(inputs, GPT2["vocab_size"])}

    def run(model, ours, inputs):
        out = model(**inputs)
        real = inputs["attention_mask"].bool()
        if ours:
            assert not out.logits[~real].any()
            return [out.logits[real]], out.loss
        # Stock predicts a token after padding from the padding; here it has nothing to be
        # predicted from.
        labels = inputs["labels"].where(torch.nn.functional.pad(real, (1, 0))[:, :-1], -100)
        return [out.logits[real]], model(**inputs | {"labels": labels}).loss

    stock = make("GPT2LMHeadModel", activation_function="gelu")
    check_pair(GPTForCausalLM, stock, tmp_path, "float32", "reference", make_inputs, run)


def test_base_model_equals_stock(tmp_path):
    inputs = batch(4, 12, "right") | {"position_ids": torch.arange(12).flip(0)[None]}
    stock = make("GPT2Model").eval()
    model = GPT.from_pretrained(save(stock, tmp_path))
    got, plain = model(**inputs), stock(**inputs)
    truth = stock.double()(**inputs)
    real = inputs["attention_mask"].bool()
    check(*(out.last_hidden_state[real] for out in (got, plain, truth)))


@pytest.mark.parametrize("changes", [{}, MODERN])
def test_packed_sequences_do_not_see_each_other(changes):
    """Packed equals each sequence alone, and equals padded."""
    model = GPTForCausalLM(config(**changes)).eval()
    inputs = batch(4, 15, "right")
    real = inputs["attention_mask"].bool()
    labels = inputs["input_ids"].where(real, -100)
    padded = model(**inputs, labels=labels)
    lengths = real.sum(1)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    ids = inputs["input_ids"][real]
    packed = model(ids, cu_seqlens=cu_seqlens, labels=ids)
    assert torch.equal(packed.logits, padded.logits[real])
    assert torch.equal(packed.loss, padded.loss)
    alone = [model(tokens[None], labels=tokens[None]) for tokens in ids.split(lengths.tolist())]
    torch.testing.assert_close(packed.logits, torch.cat([out.logits[0] for out in alone]))
    total = sum(out.loss_sums["clm"] for out in alone)
    torch.testing.assert_close(packed.loss_sums["clm"], total)
    torch.testing.assert_close(packed.loss, total / (lengths - 1).sum())


def test_rotary_depends_on_distance_alone():
    model = GPT(config(**MODERN)).double().eval()
    ids = torch.randint(0, 131, (2, 10))
    torch.testing.assert_close(
        model(ids).last_hidden_state,
        model(ids, position_ids=torch.arange(7, 17)[None]).last_hidden_state,
        rtol=0, atol=1e-6,  # the angles are fp32
    )  # fmt: skip


def test_modern_form_by_its_formula():
    """RMS norm, rotary, SwiGLU and grouped queries, against plain torch."""
    import torch.nn.functional as F

    c = config(**MODERN, n_layer=1)
    model = GPT(c).double().eval()
    ids = torch.randint(0, 131, (1, 9))
    state = model.state_dict()
    d = c.n_embd // c.n_head
    angle = torch.arange(9)[:, None] * 10000.0 ** (-torch.arange(0, d, 2).double() / d)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def turn(x):  # (S, H, D)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def norm(x, name):
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * state[f"{name}.weight"]

    def linear(x, name):
        return F.linear(x, state[f"h.0.{name}.weight"], state[f"h.0.{name}.bias"])

    x = state["wte.weight"][ids[0]]
    q, k, v = linear(norm(x, "h.0.ln_1"), "attn.c_attn").view(9, -1, d).split([4, 2, 2], dim=1)
    q, k = turn(q), turn(k)
    k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / d**0.5
    scores += torch.full((9, 9), -torch.inf).triu(1)
    o = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).flatten(1)
    x = x + linear(o, "attn.c_proj")
    gate, up = linear(norm(x, "h.0.ln_2"), "mlp.c_fc").chunk(2, dim=-1)
    x = x + linear(F.silu(gate) * up, "mlp.c_proj")
    got = model(ids).last_hidden_state[0]
    torch.testing.assert_close(got, norm(x, "ln_f"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, MODERN])
def test_autocast_keeps_the_residual_in_fp32(changes):
    model = GPT(config(**changes))
    seen = set()
    for block in model.h:
        block.register_forward_hook(lambda _, args, out: seen.add((out[0].dtype, out[1].dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randint(0, 131, (2, 8)))
    assert seen == {(torch.bfloat16, torch.float32)}


@pytest.mark.parametrize("changes", [{}, MODERN])
def test_num_items_in_batch_and_dropout(changes):
    """Dropout on: the whole batch and its halves differ; off: halves add up to the whole."""
    inputs = batch(4, 12)
    inputs["labels"] = inputs["input_ids"].where(inputs["attention_mask"].bool(), -100)
    model = GPTForCausalLM(config(**changes))
    whole, items = model(**inputs), int((inputs["labels"][:, 1:] != -100).sum())
    halves = [
        model(**{k: v[part] for k, v in inputs.items()}, num_items_in_batch=items).loss
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(halves), whole.loss)
    noisy = GPTForCausalLM(config(**changes, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1))
    first, second = noisy(**inputs).loss, noisy(**inputs).loss
    assert first != second
    assert noisy.eval()(**inputs).loss == noisy(**inputs).loss


@pytest.mark.parametrize("changes", [{}, MODERN, {"tie_word_embeddings": False}])
def test_flops_are_those_that_run(changes):
    """The reference computes all pairs; ours counts the half that causal attention needs."""
    model = GPTForCausalLM(config(**changes))
    ids = torch.randint(0, 131, (3, 16))
    with ops.backend("reference"), FlopCounterMode(display=False) as counter:
        model(ids, skip_logits=False).logits.sum().backward()
    hidden = 3 * 16 * 16 / 2
    half = 12 * model.config.n_layer * model.config.n_embd * hidden
    assert counter.get_total_flops() == model.flops(3 * 16, 3 * 16 * 16, 3 * 16) + half


def test_initial_values():
    model = GPTForCausalLM(config(n_embd=256, initializer_range=0.02))
    assert model.lm_head.weight is model.transformer.wte.weight
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = 0.02 / (4**0.5 if "c_proj" in name else 1)
            assert abs(parameter.std().item() / std - 1) < 0.05, name
        else:
            assert (parameter == (1 if "ln_" in name and "weight" in name else 0)).all(), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_head": 5}, "n_embd 48 must be a multiple of n_head 5"),
        ({"n_kv_head": 3}, "n_kv_head 3"),
        ({"norm": "batch"}, "norm: 'batch' is not one of"),
        ({"position": "alibi"}, "position: 'alibi' is not one of"),
        ({"mlp": "relu"}, "mlp: 'relu' is not one of"),
        ({"n_layer": 0}, "n_layer must be at least 1, got 0"),
        ({"activation_function": "relu"}, "activation: 'relu' is not one of gelu"),
        ({"n_head": 16, "position": "rotary"}, "head_dim must be even"),
    ],
)
def test_bad_config(change, words):
    with pytest.raises(ValueError, match=words):
        GPT(config(**change))
