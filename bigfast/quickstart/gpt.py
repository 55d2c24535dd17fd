"""Pretrains a small GPT, lets it write, and counts its bits per byte."""

from __future__ import annotations

from pathlib import Path

import torch

from bigfast.data import Shard, Tokenizer
from bigfast.models import GPTConfig, GPTForCausalLM
from bigfast.quickstart.corpus import Text
from bigfast.quickstart.plan import Plan
from bigfast.quickstart.results import Sample, Training
from bigfast.quickstart.training import fit
from bigfast.tasks import ClmConfig, ClmTask, GenerateConfig, continue_text
from bigfast.train import TrainConfig


def gpt_config(plan: Plan, tokenizer: Tokenizer) -> GPTConfig:
    return GPTConfig(
        vocab_size=tokenizer.vocab_size,
        n_positions=plan.gpt_block,
        n_embd=plan.gpt_hidden,
        n_layer=plan.layers,
        n_head=plan.heads,
        initializer_range=round(0.6 / plan.gpt_hidden**0.5, 3),
        # No token is seen often enough to be learnt by heart: dropout would only slow it.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=tokenizer.id("eos"),
    )


def pretrain_gpt(
    train: Shard, held_out: Shard, tokenizer: Tokenizer, plan: Plan, seed: int, folder: Path
) -> Training:
    """Next tokens; the model goes to `folder`/gpt. `held_out["bits_per_byte"]` is of all of it."""
    task_config = ClmConfig(
        block_size=plan.gpt_block,
        per_device_train_batch_size=plan.gpt_batch,
        per_device_eval_batch_size=16,
        max_eval_samples=None,
    )
    task = ClmTask(train, held_out, task_config, seed=seed)
    config = TrainConfig(
        output_dir=str(folder / "training" / "gpt"),
        max_minutes=plan.gpt_minutes,
        learning_rate=3e-3,
        weight_decay=0.1,
        adam_beta2=0.98,
        warmup_ratio=0.05,
        lr_scheduler_type="cosine",
        precision="bf16-master",
        seed=seed,
        tensorboard=False,
    )
    torch.manual_seed(seed)
    model = GPTForCausalLM(gpt_config(plan, tokenizer))
    return fit(model, task, tokenizer, config, folder / "gpt")


def write_samples(
    text: Text, tokenizer: Tokenizer, plan: Plan, seed: int, folder: Path
) -> list[Sample]:
    """What `folder`/gpt adds to each of the text's prompts."""
    model = GPTForCausalLM.from_pretrained(folder / "gpt", dtype=torch.float32)
    settings = GenerateConfig(
        max_new_tokens=plan.gpt_block // 2, temperature=0.7, top_p=0.95, seed=seed
    )
    texts = continue_text(model, tokenizer, text.prompts, settings)
    return [Sample(*pair) for pair in zip(text.prompts, texts)]
