"""The registry of shapes, the lengths of sentences, and what each op's file must have."""

import pytest
import torch
from bigfast.benchmarks import run
from bigfast.benchmarks.models import bert, breakdown
from bigfast.benchmarks.shapes import _SST2, LENGTHS, MODELS, SWAPPED, sst2_lengths


def test_models_are_whole():
    names = {"bert-base", "bert-large", "gpt2", "gpt2-medium", "minilm", "modernbert-base"}
    assert names <= MODELS.keys() and SWAPPED.keys() <= MODELS.keys()
    assert LENGTHS == (64, 128, 512, 1024, 2048)
    for model in MODELS.values():
        assert model.head_dim * model.heads == model.hidden


def test_lengths_are_those_of_sst2():
    lengths = sst2_lengths(20_000)
    assert sum(_SST2) == 6920
    assert abs(float(lengths.float().mean()) - (18.51 + 2)) < 0.3
    assert int(lengths.min()) >= 3
    assert int(lengths.max()) <= len(_SST2) + 2
    assert torch.equal(sst2_lengths(32), sst2_lengths(32))


@pytest.mark.realdata
def test_the_histogram_is_that_of_the_file(realdata):
    lines = (realdata / "sst2" / "train.tsv").read_text().splitlines()
    words = [len(line.rsplit("\t", 1)[0].split()) for line in lines]
    assert [words.count(n) for n in range(1, len(_SST2) + 1)] == list(_SST2)


@pytest.mark.parametrize("op", run.names())
def test_every_op_tells_its_formula(op):
    assert run.formula(op).startswith(("Bytes", "FLOPs"))


def test_quick_takes_the_first_of_each_dtype(tiny):
    full, quick = run.listed("tiny", quick=False), run.listed("tiny", quick=True)
    assert [found.label for found in quick] == ["tiny, 4 x 16, bfloat16", "tiny, 4 x 16, float32"]
    assert [found.index for found in quick] == [0, 2]
    assert len(full) == 4
    assert full[0].directions == ["forward", "backward", "both"]
    assert run.case("tiny", 3, torch.device("cpu")).label == "tiny, 8 x 16, float32"


def test_a_name_that_is_no_op():
    with pytest.raises(ValueError, match="did you mean attention\\? there are adamw, attention"):
        run.check_names(["attentoin"])


def test_sentences_grouped_by_length_are_of_the_same_pool():
    from transformers import BertConfig

    random, grouped = bert.sentence_batches(BertConfig(vocab_size=50), torch.device("cpu"))
    waste = lambda batches: sum(float(1 - b["attention_mask"].float().mean()) for b in batches)
    assert len(random) == len(grouped)
    assert waste(grouped) < 0.2 * waste(random)
    for batch in random + grouped:
        assert batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1]
        assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        ("aten::addmm", "products"),
        ("aten::bmm", "products"),
        ("bigfast::attention_fwd", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::native_layer_norm_backward", "norm, with dropout and add"),
        ("bigfast::grad_norm", "optimizer"),
        ("Optimizer.step#AdamW.step", "optimizer"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::_log_softmax", "loss"),
        ("aten::copy_", "casts and copies"),
        ("aten::gelu", "activation"),
        ("aten::add", "other"),
    ],
)
def test_kinds_of_ops(op, kind):
    assert breakdown.kind(op) == kind
