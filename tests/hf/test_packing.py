"""Packed and padded, every family: one numbers, whoever packs and wherever the padding lies."""

import families
import pytest
import torch
from check import check
from families import FAMILIES, inputs_for, make
from stock_and_swapped import main_head, pair, unlabelled

import bigfast
from bigfast.hf.swap import stock_class

SIDES = ["left", "middle"]  # "right" is in test_families.py
# Families whose position ids skip padding, and start behind padding_idx.
AFTER_PADDING = ["roberta", "xlm_roberta", "camembert", "mpnet"]
BASES = [family for family in FAMILIES if "Model" in families.heads(family)]


def padded_pair(family, head="Model", size=12, seqlen=20, **changes):
    """A stock model whose positions matter, the same swapped, a padded batch without labels, and
    whether it is packed. Skips families whose inputs are not padded ids alone."""
    stock, swapped, report = pair(family, head, **changes)
    inputs = unlabelled(stock, size=size, seqlen=seqlen)
    if set(inputs) != {"input_ids", "attention_mask"}:
        pytest.skip("it has no padded ids alone")
    for name, table in stock.named_modules():
        if isinstance(table, torch.nn.Embedding) and ("position" in name or name.endswith("wpe")):
            torch.nn.init.normal_(table.weight)
    swapped.load_state_dict(stock.state_dict())
    return stock, swapped, inputs, "unpad" in report.swapped


def one_by_one(model, inputs):
    """Hidden states (T, N) of the tokens, each sequence in a batch of its own, without padding."""
    real = inputs["attention_mask"].bool()
    rows = [ids[mask][None] for ids, mask in zip(inputs["input_ids"], real)]
    return torch.cat([model(input_ids=row).last_hidden_state[0] for row in rows])


@pytest.mark.parametrize("padding", SIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_may_lie_anywhere(family, padding):
    head = main_head(family)
    if padding == "left" and not FAMILIES[family].left:
        pytest.skip("stock takes no padding on the left")
    model = make(family, head)
    inputs = inputs_for(model, padding)
    if head in ("ForCausalLM", "LMHeadModel"):  # the first real token is predicted by a padding
        hidden = torch.nn.functional.pad(inputs["attention_mask"][:, :-1], (1, 0)) == 0
        inputs["labels"][hidden] = -100
    report = bigfast.verify(model, inputs, timed=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("family", BASES)
def test_padded_equals_one_by_one(family):
    """No sequence sees another, and every position is the one that it has alone."""
    stock, swapped, inputs, _ = padded_pair(family)
    real = inputs["attention_mask"].bool()
    truth = make(family, "Model").double()
    truth.load_state_dict(stock.state_dict())
    got = swapped(**inputs).last_hidden_state[real]
    check(got, one_by_one(stock, inputs), one_by_one(truth, inputs))


@pytest.mark.parametrize("family", AFTER_PADDING)
def test_positions_start_behind_the_padding_index(family):
    """They did not in a library of others when packed. Stock's own rule, token by token."""
    stock, swapped, inputs, _ = padded_pair(family, pad_token_id=3)
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    ids[real & (ids == 3)] = 5
    table = lambda model: model.embeddings.position_embeddings
    assert table(stock).padding_idx in (3, 1)
    first = table(stock).padding_idx + 1
    got = swapped(**inputs).last_hidden_state[real]
    positions = (real.cumsum(1) + first - 1) * real + (first - 1) * ~real
    given = inputs | {"position_ids": positions}
    torch.testing.assert_close(got, stock(**given).last_hidden_state[real])
    from_zero = inputs | {"position_ids": (positions - first).clamp(min=0)}
    away = (stock(**from_zero).last_hidden_state[real] - got).abs().mean()
    assert away > 0.1  # were they to start at 0, it would show


@pytest.mark.parametrize("positions", ["given", "found"])
@pytest.mark.parametrize("family", BASES)
def test_packed_by_the_caller(family, positions):
    """transformers' packing kwargs; `found`: without position ids, which each sequence starts."""
    # GPT-Neo's stock takes no more tokens than it has positions.
    stock, swapped, inputs, packs = padded_pair(family, size=3, seqlen=12)
    if not packs or stock_class(swapped) is None:
        pytest.skip("it stays stock under padding")
    real = inputs["attention_mask"].bool()
    lengths = real.sum(1)
    offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0))).int()
    call = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets}
    call |= dict.fromkeys(("max_length_q", "max_length_k"), int(lengths.max()))
    if positions == "given":
        first = stock.embeddings.padding_idx + 1 if family in AFTER_PADDING else 0
        call["position_ids"] = torch.cat([torch.arange(n) for n in lengths])[None] + first
    want = one_by_one(stock, inputs)
    for mode in (swapped.eval(), swapped.train()):  # no dropout, but caches
        packed = mode(input_ids=inputs["input_ids"][real][None], **call)
        torch.testing.assert_close(packed.last_hidden_state[0], want)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_may_stay_packed(family):
    head = main_head(family)
    stock, swapped, inputs, packs = padded_pair(family, head)
    real = inputs["attention_mask"].bool()
    if not packs:
        pytest.skip("it stays stock under padding")
    if family == "gpt_neo":
        with pytest.raises(ValueError, match="packed=True needs a mask"):
            swapped(**inputs, packed=True)
        return
    got = swapped(**inputs, packed=True, output_hidden_states=True)
    want = stock(**inputs, output_hidden_states=True)
    rows = int(real.sum())
    torch.testing.assert_close(got[0], want[0][real][None])
    for x, y in zip(got.hidden_states, want.hidden_states, strict=True):
        assert x.shape[:2] == (1, rows)
        torch.testing.assert_close(x[0], y[real])
    whole = swapped(input_ids=inputs["input_ids"], packed=True)[0]
    assert whole.shape[:2] == (1, real.numel())
    if head == "Model":
        return
    labels = inputs["input_ids"].where(real, -100)
    loss = swapped(**inputs, labels=labels, packed=True, skip_logits=True).loss
    torch.testing.assert_close(loss, stock(**inputs, labels=labels).loss)
    with pytest.raises(ValueError, match="packed=True gives labels no logits"):
        swapped(**inputs, labels=labels, packed=True)
    with pytest.raises(ValueError, match="packed=True needs a mask"):
        swapped(**inputs | {"attention_mask": inputs["attention_mask"] * 2}, packed=True)


def test_staying_packed_needs_unpad():
    stock = make("bert", "ForMaskedLM").train()
    inputs = inputs_for(stock, "right")
    labels = inputs.pop("labels")
    bigfast.swap(stock, unpad=False)
    with pytest.raises(ValueError, match="packed=True needs the fusion unpad"):
        stock(**inputs, labels=labels, packed=True)


def test_the_report_names_what_differs():
    said = str(bigfast.swap(make("bert", "ForMaskedLM")))
    assert "outputs at padding are zero" in said
    assert "under left padding, a head on the first token reads the first real one" in said
    assert "logits is None" in said
    assert bigfast.swap(make("bert", "ForMaskedLM"), unpad=False, loss=False).differs == []
    said = bigfast.swap(make("gpt_neo", "ForCausalLM")).differs
    assert said[0] == "outputs at padding see padding" and len(said) == 3
