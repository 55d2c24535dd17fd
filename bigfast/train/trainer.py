"""The training loop.

One optimizer step:
    micro-batches m = 1 ... gradient_accumulation_steps, fetched ahead by a thread
    counts = sum of the labelled items of each component over all of them
    for each m: loss_m = task.loss(model, m, counts); backward into fp32 gradients
    norm = |gradients|;  the optimizer with gradients * min(1, max_grad_norm / norm)

The loss of the step is the sum of loss_m, the mean over all its labelled items: 8 micro-batches of
1 train as 1 of 8 does. The losses and the norm come to the host together, once per step and before
the weights change, so that NaN and Inf stop the run with nothing spoilt.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bigfast.ops import grad_norm
from bigfast.train.checkpoint import (
    checkpoints,
    load_tensors,
    prune,
    random_state,
    read_state,
    remove_partial,
    save_checkpoint,
    set_random_state,
)
from bigfast.train.config import TrainConfig
from bigfast.train.extras import require
from bigfast.train.loading import Prefetcher
from bigfast.train.memory import keep_freed_memory
from bigfast.train.mfu import Meter, measured_peak_flops
from bigfast.train.optimizer import build_optimizer, clip_scale
from bigfast.train.precision import autocast, cast_parameters, fp32_gradients, product_dtype
from bigfast.train.progress import peak_memory_gb
from bigfast.train.schedule import lr_factor
from bigfast.train.signals import EXIT_CODE, StopRequest
from bigfast.train.state import MicroBatch, TrainResult, TrainState
from bigfast.train.task import Task
from bigfast.train.tracking import Tracker, environment


class Trainer:
    """Trains `model`, where it is, on `task` as `config` says.

    The constructor gives the parameters the dtype of `config.precision`, in place. `tokenizer`
    (transformers' or tokenizers') is written into each checkpoint. Raises ModuleNotFoundError if
    the extra bigfast[train] is not installed.
    """

    def __init__(
        self, model: nn.Module, task: Task, config: TrainConfig, tokenizer: Any = None
    ) -> None:
        require("safetensors", "rich", "matplotlib", *["tensorboard"] * config.tensorboard)
        self.model, self.task, self.config, self.tokenizer = model, task, config, tokenizer
        self.output_dir = Path(config.output_dir)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(f"model has no parameter to train: {type(model).__name__}")
        self.device = next(iter(self.parameters.values())).device
        cast_parameters(model, config.precision)
        self.optimizer = build_optimizer(self.parameters.values(), config)
        self.state = TrainState()

    def train(self) -> TrainResult:
        """Train to the end of the run, writing the log and the checkpoints into `output_dir`.

        SIGTERM and Ctrl-C finish the step, save, and raise SystemExit(0) and SystemExit(130).
        Raises ValueError if `output_dir` holds a run that `config.resume` does not continue, and
        FloatingPointError where a loss or a gradient is not finite.
        """
        config, state = self.config, self.state
        keep_freed_memory()
        self._start()
        self._meter = Meter()
        self._peak = measured_peak_flops(self.device, product_dtype(config.precision))
        ahead = max(2, config.gradient_accumulation_steps)
        with (
            Tracker(
                self.output_dir,
                self.task.name,
                header=self._header(),
                resumed_step=state.step,
                tensorboard=config.tensorboard,
            ) as tracker,
            fp32_gradients(self.parameters.values(), config.gradient_accumulation_steps),
            StopRequest() as stop,
            Prefetcher(self._fetch, state.position, ahead) as batches,
        ):
            self.model.train()
            self._began = time.monotonic() - state.seconds
            self._at_start = (self._share(), state.seconds)
            done = self._share() >= 1
            while not done and stop.signal is None:
                done = self._step(batches, tracker)
            if stop.signal is not None:
                saved = self._save(tracker)
                tracker.say(f"{stop.signal.name}: saved {saved}; resume continues from there")
                raise SystemExit(EXIT_CODE[stop.signal])
        return TrainResult(
            steps=state.step,
            loss=state.loss,
            val=state.val,
            best_val=state.best_val,
            seconds=state.seconds,
            tokens_per_s=self._meter.run.tokens_per_s,
            mfu=self._meter.run.mfu(self._peak),
            output_dir=self.output_dir,
            checkpoint=self.output_dir / f"checkpoint-{state.step}",
        )

    def evaluate(self) -> dict[str, float]:
        """The task's metrics for the model as it is; modes and random generators stay untouched."""
        with _evaluation(self.model, self.device), autocast(self.config.precision, self.device):
            return {name: float(value) for name, value in self.task.evaluate(self.model).items()}

    # -- one step ----------------------------------------------------------------------------------

    def _step(self, batches: Prefetcher[MicroBatch], tracker: Tracker) -> bool:
        """One optimizer step and what is due after it; whether it was the last."""
        config, state = self.config, self.state
        began = time.monotonic()
        micro = [next(batches) for _ in range(config.gradient_accumulation_steps)]
        lr = self._set_learning_rate()
        losses, norm = self._update(micro)

        state.step += 1
        state.position += len(micro)
        state.seconds = time.monotonic() - self._began
        state.tokens += (tokens := sum(batch.tokens for batch in micro))
        state.loss = sum(losses)
        state.window_loss += state.loss
        state.window_steps += 1
        flops = sum(batch.flops for batch in micro)
        self._meter.add(tokens, flops, time.monotonic() - began)

        last = self._share() >= 1
        self._show(tracker, last)
        evaluates = last or _due(state.step, config.eval_steps)
        if evaluates:
            self._evaluate_and_keep()
        if evaluates or _due(state.step, config.logging_steps):
            self._log(tracker, lr, norm, self.state.val if evaluates else {})
        if last or _due(state.step, config.save_steps):
            self._save(tracker)
        return last

    def _update(self, micro: list[MicroBatch]) -> tuple[list[float], float]:
        """Gradients of all of `micro`, then the optimizer; returns each loss and the norm."""
        totals = sum((Counter(batch.counts) for batch in micro), Counter())
        counts = {name: max(1, totals[name]) for batch in micro for name in batch.counts}
        losses = []
        for batch in micro:
            tensors = {k: v.to(self.device, non_blocking=True) for k, v in batch.tensors.items()}
            with autocast(self.config.precision, self.device):
                loss = self.task.loss(self.model, tensors, counts)
            loss.backward()
            losses.append(loss.detach().float())
        norm = grad_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        *values, norm_value = torch.stack([*losses, norm]).tolist()
        if not all(map(math.isfinite, (*values, norm_value))):
            raise FloatingPointError(self._describe_failure(micro, values, norm_value))
        self.optimizer.step(grad_scale=clip_scale(norm, self.config.max_grad_norm))
        self.optimizer.zero_grad(set_to_none=True)
        return values, norm_value

    def _describe_failure(self, micro: list[MicroBatch], losses: list[float], norm: float) -> str:
        sizes = {
            name: float(p.grad.abs().nan_to_num(nan=math.inf).max())
            for name, p in self.parameters.items()
            if p.grad is not None and p.grad.numel()
        }
        largest = max(sizes, key=sizes.__getitem__)
        bad = [(b.position, loss) for b, loss in zip(micro, losses) if not math.isfinite(loss)]
        if bad:
            what = f"the loss of batch {bad[0][0]} is {bad[0][1]}"
        else:
            what = (
                f"the gradient norm over batches {micro[0].position} to {micro[-1].position} "
                f"is {norm}"
            )
        infinite = sum(math.isinf(size) for size in sizes.values())
        return (
            f"step {self.state.step + 1}: {what}. Largest gradient: {sizes[largest]} in "
            f"{largest!r} ({infinite} of {len(sizes)} parameters have NaN or Inf). The weights are "
            "those before this step; no checkpoint was written or changed"
        )

    def _set_learning_rate(self) -> float:
        config = self.config
        factor = lr_factor(
            self._share(),
            config.lr_scheduler_type,
            warmup=config.warmup,
            min_ratio=config.min_lr_ratio,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        return config.learning_rate * factor

    def _share(self) -> float:
        """Share of the run that is done."""
        return self.config.progress(self.state.step, time.monotonic() - self._began)

    def _fetch(self, position: int) -> MicroBatch:
        task, tensors = self.task, self.task.batch(position)
        return MicroBatch(
            position,
            tensors,
            task.counts(tensors),
            task.tokens(tensors),
            task.flops(self.model, tensors),
        )

    # -- what a step leaves behind -----------------------------------------------------------------

    def _evaluate_and_keep(self) -> None:
        state = self.state
        state.val = {**self.evaluate(), "step": state.step}
        if not state.best_val or state.val["val_loss"] < state.best_val["val_loss"]:
            state.best_val = state.val

    def _show(self, tracker: Tracker, last: bool) -> None:
        state, speed, share = self.state, self._meter.run, self._share()
        share_at_start, seconds_at_start = self._at_start
        spent = state.seconds - seconds_at_start
        values = {
            "loss": state.loss,
            "tokens_per_s": speed.tokens_per_s,
            "mfu": speed.mfu(self._peak),
            "eta": spent * (1 - share) / (share - share_at_start),
            "memory_gb": peak_memory_gb(self.device),
        }
        if state.val:
            values["val_loss"] = state.val["val_loss"]
        tracker.show(state.step, share, values, always=last)

    def _log(self, tracker: Tracker, lr: float, norm: float, metrics: dict[str, float]) -> None:
        state, speed = self.state, self._meter.next_window()
        tracker.row(
            {
                "step": state.step,
                "loss": state.window_loss / state.window_steps,
                **{name: value for name, value in metrics.items() if name != "step"},
                "lr": lr,
                "grad_norm": norm,
                "tokens": state.tokens,
                "tokens_per_s": speed.tokens_per_s,
                "mfu": speed.mfu(self._peak),
                "seconds": state.seconds,
                "memory_gb": peak_memory_gb(self.device),
            }
        )
        state.window_loss, state.window_steps = 0.0, 0

    def _save(self, tracker: Tracker) -> Path:
        path = self.output_dir / f"checkpoint-{self.state.step}"
        tracker.save()
        if not path.exists():  # else this step is where the run was resumed
            save_checkpoint(
                self.output_dir,
                self.state.step,
                model=self.model,
                parameters=self.parameters,
                optimizer=self.optimizer,
                state={**asdict(self.state), "config": asdict(self.config)},
                tokenizer=self.tokenizer,
            )
        if self.config.save_total_limit is not None:
            prune(self.output_dir, self.config.save_total_limit)
        return path

    # -- start and resume --------------------------------------------------------------------------

    def _start(self) -> None:
        """Seed a new run, or put everything where the checkpoint to resume from left it."""
        config = self.config
        self.output_dir.mkdir(parents=True, exist_ok=True)
        remove_partial(self.output_dir)
        here = checkpoints(self.output_dir)
        if not config.resume and (here or (self.output_dir / "log.jsonl").exists()):
            raise ValueError(
                f"output_dir {config.output_dir!r} holds a run: set resume to continue it, or "
                "choose another folder"
            )
        source = here[-1] if here else None
        if isinstance(config.resume, str):
            source = Path(config.resume)
            if here and source.resolve() != here[-1].resolve():
                raise ValueError(
                    f"resume={config.resume!r} is not the last checkpoint of output_dir "
                    f"({str(here[-1])!r}): what follows it would be lost; choose another output_dir"
                )
        if source is None:
            random.seed(config.seed)
            np.random.seed(config.seed)
            torch.manual_seed(config.seed)
        else:
            self._resume(source)

    def _resume(self, source: Path) -> None:
        saved = read_state(source)
        for name in ("precision", "optim"):
            # A checkpoint from before there was the setting has its default.
            before = saved["config"].get(name, getattr(TrainConfig, name))
            now = getattr(self.config, name)
            if now != before:
                raise ValueError(
                    f"{name}={now!r} cannot continue {str(source)!r}, which was trained with "
                    f"{before!r}"
                )
        load_tensors(source, model=self.model, parameters=self.parameters, optimizer=self.optimizer)
        for name in asdict(self.state):
            setattr(self.state, name, saved[name])
        set_random_state(saved["random"])

    def _header(self) -> dict[str, Any]:
        return {
            **environment(self.device),
            "task": self.task.name,
            "model": type(self.model).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "resumed_from_step": self.state.step,
            "peak_flops": self._peak,
            "mfu": "FLOPs on real tokens / peak_flops, the fastest "
            f"{product_dtype(self.config.precision)} matrix product measured here at the start",
            "config": asdict(self.config),
        }


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextmanager
def _evaluation(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode without gradients; each module's mode and every random generator come back."""
    modes = [(module, module.training) for module in model.modules()]
    generators = random_state(device)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        set_random_state(generators)
