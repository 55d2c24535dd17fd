"""Hugging Face directories: what transformers saves is read here, and the other way round."""

import json
import warnings

import pytest
import torch
import transformers
from pairs import make, save
from safetensors.torch import load_file, save_file

from bigfast import models
from bigfast.models import (
    GPT,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    GPTConfig,
    GPTForCausalLM,
)

NAMES = {"GPT2LMHeadModel": "GPTForCausalLM", "GPT2Model": "GPT"}
KINDS = [
    "BertModel", "BertForPreTraining", "BertForMaskedLM", "BertForSequenceClassification",
    "BertForTokenClassification", "GPT2Model", "GPT2LMHeadModel",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype and torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(tmp_path, kind, dtype):
    """Every tensor and every config value survives; transformers finds nothing missing."""
    stock = make(kind).to(dtype)
    model = getattr(models, NAMES.get(kind, kind)).from_pretrained(save(stock, tmp_path / "stock"))
    assert not model.training and not any(p.is_meta for p in model.parameters())
    model.save_pretrained(tmp_path / "ours")
    again, report = getattr(transformers, kind).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(report.values())
    assert_same(again.state_dict(), stock.state_dict())
    assert again.config.to_dict() | {"_name_or_path": ""} == stock.config.to_dict() | {
        "_name_or_path": ""
    }
    files = [tmp_path / name / "model.safetensors" for name in ("stock", "ours")]
    assert_same(*map(load_file, files))


def test_state_dict_names_are_stocks():
    for kind in KINDS[:5]:
        model = getattr(models, kind)(BertConfig(131, 48, 2, 4, 96))
        assert model.state_dict().keys() == make(kind).state_dict().keys()
    model = GPTForCausalLM(GPTConfig(131, 64, 48, 2, 4))
    assert model.state_dict().keys() == make("GPT2LMHeadModel").state_dict().keys()


def test_shards(tmp_path):
    stock = make("BertForMaskedLM")
    stock.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same(BertForMaskedLM.from_pretrained(tmp_path).state_dict(), stock.state_dict())


def test_dtype_and_changes(tmp_path):
    save(make("BertForMaskedLM"), tmp_path)
    model = BertForMaskedLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, hidden_dropout_prob=0.25
    )
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config.hidden_dropout_prob == model.bert.embeddings.dropout_p == 0.25
    with pytest.raises(TypeError, match="hidden_dropout"):
        BertForMaskedLM.from_pretrained(tmp_path, hidden_dropout=0.1)


def test_saving_over_the_directory_that_was_read(tmp_path):
    model = BertModel.from_pretrained(save(make("BertModel"), tmp_path))
    want = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    assert_same(BertModel.from_pretrained(tmp_path).state_dict(), want)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_from_bare_to_headed_and_back(tmp_path):
    bare = make("BertModel")
    save(bare, tmp_path / "bare")
    with pytest.warns(UserWarning, match=r"has no classifier: initialised anew"):
        model = BertForSequenceClassification.from_pretrained(
            tmp_path / "bare", num_labels=5, dtype=torch.bfloat16
        )
    assert model.classifier.weight.shape == (5, 48) and model.classifier.weight.std() > 0
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "headed")
    with pytest.warns(UserWarning, match=r"has classifier, which BertModel does not use"):
        again = BertModel.from_pretrained(tmp_path / "headed")
    assert_same(again.state_dict(), bare.bfloat16().state_dict())


def test_from_pretraining_to_fine_tuning(tmp_path):
    save(make("BertForPreTraining"), tmp_path)
    with pytest.warns(UserWarning) as said:
        model = BertForSequenceClassification.from_pretrained(tmp_path)
    assert [str(w.message).split(" ", 1)[1] for w in said] == [
        "has no classifier: initialised anew, to be trained",
        "has cls.predictions, cls.seq_relationship, which BertForSequenceClassification does not "
        "use",
    ]
    assert model.bert.pooler.dense.weight.abs().sum() > 0


def test_tied_weights_stay_one(tmp_path):
    save(make("GPT2Model"), tmp_path)  # without a head: the tied one is not missing
    model = GPTForCausalLM.from_pretrained(tmp_path)
    assert model.lm_head.weight is model.transformer.wte.weight
    save(make("BertForPreTraining"), tmp_path)
    model = BertForPreTraining.from_pretrained(tmp_path)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    stock = make("GPT2LMHeadModel", tie_word_embeddings=False)
    model = GPTForCausalLM.from_pretrained(save(stock, tmp_path))
    assert torch.equal(model.lm_head.weight, stock.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, model.transformer.wte.weight)


def rewrite(directory, change) -> None:
    state = load_file(directory / "model.safetensors")
    save_file(change(state), directory / "model.safetensors", {"format": "pt"})


def test_names_and_buffers_of_older_checkpoints(tmp_path):
    stock = make("BertForMaskedLM")
    save(stock, tmp_path)

    def age(state):
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in state.items()
        }
        decoder = old["bert.embeddings.word_embeddings.weight"].clone()
        return old | {
            "bert.embeddings.position_ids": torch.arange(64)[None],
            "cls.predictions.decoder.weight": decoder,
        }

    rewrite(tmp_path, age)
    assert_same(BertForMaskedLM.from_pretrained(tmp_path).state_dict(), stock.state_dict())
    stock = make("GPT2LMHeadModel")
    save(stock, tmp_path)
    rewrite(tmp_path, lambda state: state | {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)})
    GPTForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "layer.1.output.dense" not in k},
            r"lacks parameters bert.encoder.layer.1.output.dense.bias, bert.encoder.layer.1.outp",
        ),
        (
            lambda s: {k: v for k, v in s.items() if k != "cls.predictions.transform.dense.bias"},
            "lacks parameters cls.predictions.transform.dense.bias",
        ),
        (
            lambda s: s | {"bert.encoder.layer.0.adapter.weight": torch.ones(2)},
            "has unknown parameters bert.encoder.layer.0.adapter.weight",
        ),
        (
            lambda s: s | {"cls.predictions.bias": torch.ones(7)},
            r"has cls.predictions.bias of shape \(7,\), the config asks for \(131,\)",
        ),
    ],
)
def test_bad_weights(tmp_path, change, words):
    save(make("BertForMaskedLM"), tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=words):
        BertForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_decoder": True}, "is_decoder=True is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"problem_type": "regression"}, "problem_type='regression'"),
        ({"frobnicate": 3}, "unknown keys frobnicate for BertConfig"),
        ({"hidden_act": "relu"}, "activation: 'relu'"),
        ({"model_type": "roberta"}, "holds a 'roberta' model, but BertModel reads bert"),
    ],
)
def test_bad_config(tmp_path, change, words):
    save(make("BertModel"), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match=words):
        BertModel.from_pretrained(tmp_path)


def test_harmless_keys_are_kept(tmp_path):
    stock = make("BertForSequenceClassification", id2label={0: "no", 1: "yes", 2: "maybe"})
    model = BertForSequenceClassification.from_pretrained(save(stock, tmp_path))
    assert model.config.num_labels == 3
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["id2label"] == {"0": "no", "1": "yes", "2": "maybe"}
    assert values["architectures"] == ["BertForSequenceClassification"]
    assert values["dtype"] == "float32"


def test_pickles_are_refused(tmp_path):
    save(make("BertModel"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model.safetensors nor"):
        BertModel.from_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"pytorch_model.bin alone, a pickle.*save_pretrained"):
        BertModel.from_pretrained(tmp_path)


def test_a_modern_gpt_is_not_taken_for_gpt2(tmp_path):
    form = {"norm": "rms_norm", "position": "rotary", "mlp": "swiglu", "n_kv_head": 2}
    model = GPTForCausalLM(GPTConfig(131, 64, 48, 2, 4, **form)).eval()
    model.save_pretrained(tmp_path)
    ids = torch.randint(0, 131, (2, 9))
    again = GPTForCausalLM.from_pretrained(tmp_path)
    assert vars(again.config) | {"extra": {}} == vars(model.config)
    assert torch.equal(again(ids).logits, model(ids).logits)
    with pytest.raises(ValueError, match="bigfast_gpt"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(GPT.from_pretrained(tmp_path).wte.weight, model.transformer.wte.weight)
