"""Trainer, PEFT and DDP on swapped models: what they give on stock ones."""

import copy
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import transformers
from families import inputs_for, make
from stock_and_swapped import pair
from torch import distributed, multiprocessing, nn

import bigfast
from bigfast.hf.swap import stock_class
from bigfast.ops import library


@pytest.fixture(autouse=True)
def _swaps_without_kernels():
    with nullcontext() if library.NATIVE_MISSING is None else bigfast.backend("reference"):
        yield


def losses_of(model, inputs, steps=5):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.05)
    found = []
    for _ in range(steps):
        loss = model.train()(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


# Trainer ------------------------------------------------------------------------------------------


def rows(model, count=24):
    inputs = inputs_for(model, size=count)
    return [{name: x[i] for name, x in inputs.items()} for i in range(count)]


def trainer_of(model, folder, data, **arguments):
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=4, max_steps=6, save_steps=3, logging_steps=1,
        learning_rate=1e-3, report_to=[], use_cpu=True, disable_tqdm=True, seed=3, **arguments,
    )  # fmt: skip
    return transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data)


@pytest.mark.parametrize(
    ("family", "head"), [("bert", "ForSequenceClassification"), ("gpt2", "LMHeadModel")]
)
def test_trainer(family, head, tmp_path):
    """Trains, evaluates and predicts as on stock; what it saves is stock's."""
    stock, model, _ = pair(family, head)
    data = rows(stock)
    trainers = [trainer_of(m, tmp_path / str(i), data) for i, m in enumerate((stock, model))]
    curves, metrics, predictions = [], [], []
    for trainer in trainers:
        trainer.train()
        curves.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        metrics.append(trainer.evaluate()["eval_loss"])
        predictions.append(torch.as_tensor(trainer.predict(data).predictions))
    assert len(curves[0]) == 6
    torch.testing.assert_close(curves[1], curves[0], atol=1e-3, rtol=0)  # logged with few digits
    torch.testing.assert_close(metrics[1], metrics[0], atol=1e-3, rtol=1e-3)
    real = torch.stack([row["attention_mask"] for row in data]).bool()
    want, got = (p if p.ndim < 3 else p[real] for p in predictions)
    torch.testing.assert_close(got, want, atol=5e-3, rtol=5e-3)
    saved = type(stock).from_pretrained(tmp_path / "1" / "checkpoint-6")
    assert all(torch.equal(p, q) for p, q in zip(saved.parameters(), model.parameters()))


def test_trainer_resumes(tmp_path):
    """To the same bits, dropout on; and a stock checkpoint goes on swapped."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    stock, model, _ = pair("bert", "ForMaskedLM", **dropout)
    other = copy.deepcopy(model)
    data = rows(stock)
    whole = trainer_of(model, tmp_path / "whole", data)
    whole.train()
    resumed = trainer_of(other, tmp_path / "resumed", data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters()))
    trainer_of(stock, tmp_path / "stock", data).train()
    resumed = trainer_of(other, tmp_path / "resumed", data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stock" / "checkpoint-3"))
    assert resumed.state.global_step == 6 and stock_class(other) is type(stock)


# PEFT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("bert", ["query", "value"]),
        *((f, "all-linear") for f in ("bert", "distilbert", "gpt2", "llama")),
    ],
)
def test_lora(family, targets, when):
    """Adapters before or after the swap: the losses of stock with the same adapters, and the
    gradients of these alone."""
    peft = pytest.importorskip("peft")
    stock, model, _ = pair(family)
    inputs = inputs_for(stock)

    def adapted(one):
        torch.manual_seed(2)
        config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        return peft.get_peft_model(one, config)

    stock = adapted(stock)
    model = adapted(bigfast.restore(model) if when == "before" else model)
    if when == "before":
        bigfast.swap(model)
    assert stock_class(model.base_model.model) is type(stock.base_model.model)
    want, got = (losses_of(m, inputs) for m in (stock, model))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for (name, p), q in zip(model.named_parameters(), stock.named_parameters(), strict=True):
        assert name == q[0] and (p.grad is None) == ("lora" not in name) == (q[1].grad is None)
        torch.testing.assert_close(p, q[1], rtol=1e-3, atol=1e-4, msg=name)
    merged = bigfast.restore(model).merge_and_unload()
    assert not any(stock_class(m) for m in merged.modules())


# DDP ----------------------------------------------------------------------------------------------


def _half(inputs, rank, world):
    size = len(inputs["input_ids"]) // world
    return {name: x[rank * size : (rank + 1) * size] for name, x in inputs.items()}


def _train(rank, world, folder, backend):
    """A replica's steps on its share, without a search for parameters that got no gradient."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder}/store{world}"
    distributed.init_process_group("gloo", store, world_size=world, rank=rank)
    try:
        with nullcontext() if backend is None else bigfast.backend(backend):
            model, inputs = torch.load(Path(folder) / "task.pt", weights_only=False)
            replica = nn.parallel.DistributedDataParallel(model.train())
            losses_of(replica, _half(inputs, rank, world), 3)
        if rank == 0:
            torch.save(model.state_dict(), Path(folder) / f"after{world}.pt")
        distributed.barrier()  # none leaves while another still talks to it
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
def test_ddp(tmp_path):
    """One replica and two: the parameters after some steps are those of one process and stock."""
    stock, model, _ = pair("bert", "ForSequenceClassification")
    inputs = inputs_for(stock)
    torch.save((model, inputs), tmp_path / "task.pt")
    losses_of(stock, inputs, 3)
    backend = None if library.NATIVE_MISSING is None else "reference"
    _train(0, 1, str(tmp_path), backend)
    multiprocessing.spawn(_train, (2, str(tmp_path), backend), nprocs=2)
    for world in (1, 2):
        after = torch.load(tmp_path / f"after{world}.pt")
        for name, p in stock.state_dict().items():
            torch.testing.assert_close(after[name], p, rtol=1e-4, atol=1e-5, msg=name)


def test_no_parameter_goes_without_a_gradient():
    """DDP would wait for it: no labelled token, an empty row of the mask, one token."""
    model = make("bert", "ForMaskedLM").train()
    inputs = inputs_for(model)
    bigfast.swap(model)
    unlabelled = inputs | {"labels": torch.full_like(inputs["labels"], -100)}
    empty = copy.deepcopy(inputs)
    empty["attention_mask"][3] = 0
    one = {name: x[:1, :1] for name, x in inputs.items()}
    for batch in (unlabelled, empty, one):
        model.zero_grad()
        model(**batch).loss.backward()
        assert all(p.grad is not None for p in model.parameters())
