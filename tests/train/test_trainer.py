"""The loop: accumulation, precision, clipping, evaluation, NaN, the log."""

import json

import pytest
import torch
from torch import nn
from toy import ToyModel, ToyTask, make_model

from bigfast.train import TrainConfig, Trainer, extras, mfu
from bigfast.train.loading import Prefetcher
from bigfast.train.tracking import read_log

PRECISIONS = ["fp32", "bf16-autocast", "bf16-master", "bf16"]
RATES = {"adamw": 1e-2, "lamb": 2e-2, "lion": 4e-3, "stable_adamw": 1e-2}


def train_rows(result):
    return [r for r in read_log(result.output_dir / "log.jsonl") if r["type"] == "train"]


# -- accumulation and precision --------------------------------------------------------------------


def test_eight_batches_of_one_train_as_one_of_eight(run):
    one, a = run("1x8", task=ToyTask(rows=8), model=make_model(dropout=0.0))
    many, b = run(
        "8x1", task=ToyTask(1), model=make_model(dropout=0.0), gradient_accumulation_steps=8
    )
    losses = [[row["loss"] for row in train_rows(result)] for result in (one, many)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, parameter in a.parameters.items():
        torch.testing.assert_close(b.parameters[name], parameter, rtol=1e-4, atol=1e-5)


def test_the_mean_of_micro_batch_means_would_differ(run):
    """The label counts of the toy are unequal, so that the test above tests something."""
    task = ToyTask(rows=1)
    assert len({task.counts(task.batch(position))["lm"] for position in range(8)}) > 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns(run, precision):
    result, trainer = run(
        max_steps=150, task=ToyTask(rows=8), precision=precision, lr_scheduler_type="cosine"
    )
    losses = [row["loss"] for row in train_rows(result)]
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])
    assert result.val["val_loss"] < 0.4 * losses[0]
    dtype = torch.bfloat16 if precision in ("bf16-master", "bf16") else torch.float32
    kept = trainer.optimizer.state.values()
    assert all(("master" in state) == (precision == "bf16-master") for state in kept)
    assert {p.dtype for p in trainer.model.parameters()} == {dtype}
    assert trainer.model.table.dtype == torch.float32
    assert {p.grad_dtype for p in trainer.model.parameters()} == {None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optim", sorted(RATES))
def test_every_optimizer_learns(run, optim, precision):
    result, trainer = run(
        max_steps=150,
        task=ToyTask(rows=8),
        optim=optim,
        precision=precision,
        learning_rate=RATES[optim],
        lr_scheduler_type="cosine",
    )
    losses = [row["loss"] for row in train_rows(result)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert type(trainer.optimizer).__name__.lower() == optim.replace("_", "")


def test_lamb_adapts_matrices_alone_with_and_without_decay(run):
    for weight_decay in (0.0, 0.1):
        _, trainer = run(f"{weight_decay}", max_steps=1, optim="lamb", weight_decay=weight_decay)
        matrices, others = trainer.optimizer.param_groups
        assert matrices["always_adapt"] and {p.ndim for p in matrices["params"]} == {2}
        assert not others["always_adapt"] and others["weight_decay"] == 0.0


def test_gradients_accumulate_in_fp32(run, monkeypatch):
    seen = set()
    original = Trainer._update

    def update(self, micro):
        for p in self.parameters.values():
            p.register_post_accumulate_grad_hook(lambda p: seen.add((p.dtype, p.grad.dtype)))
        return original(self, micro)

    monkeypatch.setattr(Trainer, "_update", update)
    run(max_steps=1, precision="bf16-master", gradient_accumulation_steps=3)
    assert seen == {(torch.bfloat16, torch.float32)}


def test_clipping_bounds_the_step_and_zero_turns_it_off(run):
    _, free = run("free", max_steps=1, max_grad_norm=0.0)
    result, clipped = run("clipped", max_steps=1, max_grad_norm=0.25)
    norm = train_rows(result)[0]["grad_norm"]
    assert norm > 0.25
    p, q = free.parameters["inner.weight"], clipped.parameters["inner.weight"]
    first_moment = free.optimizer.state[p]["exp_avg"] * (0.25 / norm)
    torch.testing.assert_close(clipped.optimizer.state[q]["exp_avg"], first_moment)


def test_biases_and_norms_are_not_decayed(run):
    _, trainer = run(max_steps=1, weight_decay=0.1)
    decay = {id(p): g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    for parameter in trainer.parameters.values():
        assert decay[id(parameter)] == (0.1 if parameter.ndim >= 2 else 0.0)


def test_frozen_parameters_stay(run):
    model = make_model()
    model.sentence.requires_grad_(False)
    before = model.sentence.weight.clone()
    _, trainer = run(model=model)
    assert torch.equal(before, model.sentence.weight)
    assert "sentence.weight" not in trainer.parameters
    with pytest.raises(ValueError, match="no parameter"):
        Trainer(model.requires_grad_(False), ToyTask(), trainer.config)


# -- data and evaluation ---------------------------------------------------------------------------


def test_batches_come_in_order_and_errors_come_with_their_batch(run):
    def fetch(position):
        if position == 7:
            raise OSError("disk")
        return position

    with Prefetcher(fetch, 3, depth=5) as batches:
        assert [next(batches) for _ in range(4)] == [3, 4, 5, 6]
        with pytest.raises(OSError, match="disk"):
            next(batches)


def test_evaluation_leaves_modes_and_random_generators_alone(run):
    with_evaluation, _ = run("often", eval_steps=1)
    without, _ = run("never")
    assert [r["loss"] for r in train_rows(with_evaluation)] == [
        r["loss"] for r in train_rows(without)
    ]
    model = make_model()
    model.dropout.eval()
    config = TrainConfig("unused", max_steps=1, tensorboard=False)
    assert Trainer(model, ToyTask(), config).evaluate().keys() == {"val_loss"}
    assert model.training and model.inner.training and not model.dropout.training


# -- what stops a run ------------------------------------------------------------------------------


class PoisonedTask(ToyTask):
    """Batch `bad` has an infinite loss, or a finite one with an infinite gradient."""

    def __init__(self, bad, gradient=False):
        super().__init__()
        self.bad, self.gradient = bad, gradient

    def batch(self, position):
        return {**super().batch(position), "position": torch.tensor(position)}

    def loss(self, model, batch, counts):
        loss = super().loss(model, batch, counts)
        if batch.get("position") == self.bad:
            x = model.inner.bias.sum() * 0
            loss = loss + (x.sqrt() if self.gradient else x + float("inf"))
        return loss


@pytest.mark.parametrize("gradient", [False, True])
def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path, gradient):
    model = make_model()
    settings = {"gradient_accumulation_steps": 2, "save_steps": 1}
    with pytest.raises(FloatingPointError) as error:
        run(model=model, task=PoisonedTask(7, gradient), **settings)
    message = str(error.value)
    assert message.startswith("step 4: ")
    if gradient:
        assert "batches 6 to 7 is nan" in message and "inf in 'inner.bias' (1 of 8" in message
    else:
        assert "batch 7 is inf. Largest gradient: " in message
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert sorted(path.name for path in (tmp_path / "run").glob("*checkpoint*")) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-3",
    ]
    assert [r["step"] for r in read_log(tmp_path / "run/log.jsonl")[1:]] == [1, 2, 3]


def test_a_run_ends_with_its_minutes(run):
    result, trainer = run(
        max_steps=None, max_minutes=0.5 / 60, logging_steps=10**9, lr_scheduler_type="linear"
    )
    assert 0.5 <= result.seconds < 2.0
    assert result.steps > 10 and result.checkpoint.is_dir()
    rows = train_rows(result)
    assert len(rows) == 1 and rows[0]["lr"] < 0.2 * trainer.config.learning_rate


# -- what a run leaves -----------------------------------------------------------------------------


def test_log_rows_and_result(run):
    result, _ = run(max_steps=7, logging_steps=2, eval_steps=3, warmup_steps=2, tensorboard=True)
    header, *rows = read_log(result.output_dir / "log.jsonl")
    assert header["type"] == "header" and header["config"]["max_steps"] == 7
    assert header["versions"]["torch"] == torch.__version__
    assert {"command", "commit", "device", "peak_flops", "mfu"} <= header.keys()
    assert [row["step"] for row in rows] == [2, 3, 4, 6, 7]
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 6, 7]
    needed = {"loss", "lr", "grad_norm", "tokens", "tokens_per_s", "mfu", "seconds", "memory_gb"}
    assert all(needed <= row.keys() and row["tokens_per_s"] > 0 for row in rows)
    assert [row["tokens"] for row in rows] == [24 * row["step"] for row in rows]
    assert rows[0]["lr"] == pytest.approx(0.5e-2) and rows[1]["lr"] == pytest.approx(1e-2)
    assert result.steps == 7 and result.val == {"val_loss": rows[-1]["val_loss"], "step": 7}
    assert result.best_val["val_loss"] == min(r["val_loss"] for r in rows if "val_loss" in r)
    assert result.tokens_per_s > 0 and result.mfu == pytest.approx(
        result.tokens_per_s * ToyTask().flops(ToyModel(), {"ids": torch.zeros(1)}) / 1e9
    )
    assert (result.output_dir / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list((result.output_dir / "tensorboard").glob("events.out.tfevents.*"))


def test_a_row_has_the_mean_loss_since_the_last(run):
    each, _ = run("each")
    fourth, _ = run("fourth", logging_steps=4)
    losses = [row["loss"] for row in train_rows(each)]
    means = [row["loss"] for row in train_rows(fourth)]
    assert means == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 4])


def test_another_run_is_not_overwritten(run):
    run()
    with pytest.raises(ValueError, match="output_dir"):
        run()


def test_a_missing_extra_is_named(run, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "tensorboard" else 1)
    run("without", max_steps=1)
    with pytest.raises(ModuleNotFoundError, match=r"tensorboard.*bigfast\[train\]"):
        run(tensorboard=True)


def test_the_first_steps_do_not_count_in_the_speed():
    meter = mfu.Meter()
    for seconds in (9.0, 9.0, 9.0):
        meter.add(10, 20.0, seconds)
    assert meter.run.tokens_per_s == pytest.approx(10 / 9)
    for _ in range(4):
        meter.add(10, 20.0, 1.0)
    assert meter.run.tokens_per_s == 10 and meter.run.mfu(40.0) == 0.5
    assert meter.next_window().seconds == 4.0 and meter.window.seconds == 0.0


def test_the_measured_peak_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    peak = mfu.measured_peak_flops(torch.device("cpu"), torch.float32, 0.02)
    assert peak > 1e8 and torch.equal(before, torch.get_rng_state())


def test_the_live_display(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run(max_steps=3)
    shown = capsys.readouterr().out
    assert "toy" in shown and "step 3" in shown and "tokens/s" in shown and "GB" in shown


def test_plain_lines_are_few(run, capsys):
    run(max_steps=30)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[-1].startswith("step 30 (100 %)  loss")


class Pretrained(nn.Module):
    """A model whose save_pretrained writes a transposed weight, as GPT-2's does, and no tie."""

    def __init__(self):
        super().__init__()
        self.toy = make_model()

    def forward(self, ids):
        return self.toy(ids)

    def save_pretrained(self, folder):
        from safetensors.torch import save_file

        tensors = {n: p.detach() for n, p in self.named_parameters()}
        tensors["toy.inner.weight"] = tensors["toy.inner.weight"].T.contiguous()
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "toy"}))


class Tokenizer:
    def save(self, path):
        with open(path, "w") as file:
            file.write("{}")


def test_the_models_own_layout_and_the_tokenizer_are_written(run):
    from safetensors import safe_open

    result, trainer = run(model=Pretrained(), tokenizer=Tokenizer())
    names = {path.name for path in result.checkpoint.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "trainer_state.json"} <= names
    with safe_open(result.checkpoint / "model_state.safetensors", "pt") as rest:
        assert set(rest.keys()) == {"toy.inner.weight", "toy.table"}
    fresh = Pretrained()
    nn.init.zeros_(fresh.toy.inner.weight)
    run(model=fresh, resume=True)
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, fresh.get_parameter(name))
