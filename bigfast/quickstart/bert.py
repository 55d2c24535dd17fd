"""Pretrains a small BERT, and fine-tunes it beside what shows whether that was worth it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from bigfast.data import Labelled, Shard, Tokenizer
from bigfast.models import BertConfig, BertForPreTraining, BertForSequenceClassification
from bigfast.quickstart.baselines import bag_of_words, majority
from bigfast.quickstart.corpus import Text
from bigfast.quickstart.plan import SEEDS, Plan
from bigfast.quickstart.results import (
    BAG,
    FRESH,
    MAJORITY,
    PRETRAINED,
    Classification,
    Scores,
    Training,
)
from bigfast.quickstart.stages import Stages
from bigfast.quickstart.training import fit
from bigfast.tasks import ClassifyConfig, ClassifyTask, MlmConfig, MlmNspTask
from bigfast.train import TrainConfig

LABELS = ["no", "yes"]


def bert_config(plan: Plan, tokenizer: Tokenizer) -> BertConfig:
    """The sizes, and the dropout of fine-tuning (BERT's own, 0.1)."""
    return BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=plan.hidden,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        intermediate_size=4 * plan.hidden,
        max_position_embeddings=plan.row,
        # BERT's 0.02 suits a width of 768; narrower, the sublayers would hardly be heard at first.
        initializer_range=round(0.6 / plan.hidden**0.5, 3),
        pad_token_id=tokenizer.id("pad"),
        num_labels=len(LABELS),
    )


def pretrain_bert(
    train: Shard, held_out: Shard, tokenizer: Tokenizer, plan: Plan, seed: int, folder: Path
) -> Training:
    """Masked tokens and next sentences; the model goes to `folder`/bert."""
    task = MlmNspTask(
        train,
        held_out,
        MlmConfig(
            max_seq_length=plan.row,
            per_device_train_batch_size=plan.batch,
            per_device_eval_batch_size=32,
            max_eval_samples=512,
        ),
        seed=seed,
    )
    config = TrainConfig(
        output_dir=str(folder / "training" / "bert"),
        max_minutes=plan.bert_minutes,
        learning_rate=1.5e-3,
        weight_decay=0.01,
        adam_beta2=0.98,
        warmup_ratio=0.06,
        precision="bf16-master",
        seed=seed,
        eval_steps=plan.eval_steps,
        tensorboard=False,
    )
    torch.manual_seed(seed)
    settings = bert_config(plan, tokenizer)
    # No text is seen often enough to be learnt by heart: dropout would only slow it. What is saved
    # says how to fine-tune.
    model = BertForPreTraining(
        replace(settings, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    model.config = settings
    return fit(model, task, tokenizer, config, folder / "bert")


def classify(
    text: Text, tokenizer: Tokenizer, plan: Plan, seed: int, folder: Path, stages: Stages
) -> Classification:
    """Fine-tunes `folder`/bert, and what it is compared with, on the labels of the text.

    Pretrained and not, the network gets the same examples in the same order for as many steps: the
    planned ones, or what the first run makes of its time. That one goes to `folder`/classifier.
    """
    task_config = ClassifyConfig(
        max_seq_length=plan.row,
        per_device_train_batch_size=plan.finetune_batch,
        per_device_eval_batch_size=32,
    )
    scores: dict[str, list[Scores]] = {
        MAJORITY: [majority(text.train_examples, text.test_examples)],
        BAG: [bag_of_words(text.train_examples, text.test_examples)],
        FRESH: [],
        PRETRAINED: [],
    }
    train, test = (Labelled(e, LABELS) for e in (text.train_examples, text.test_examples))
    steps, minutes = None, plan.finetune_minutes
    for run in range(SEEDS):
        for method in (PRETRAINED, FRESH):
            stages.say(f"{method}, seed {seed + run}")
            task = ClassifyTask(train, test, tokenizer, task_config, seed=seed + run)
            whole = max(1, round(plan.finetune_epochs * len(task)))
            name = f"{'pretrained' if method == PRETRAINED else 'fresh'}-{run + 1}"
            config = TrainConfig(
                output_dir=str(folder / "training" / name),
                max_steps=steps or whole,
                max_minutes=None if steps else minutes,
                learning_rate=plan.finetune_lr,
                weight_decay=0.01,
                warmup_ratio=0.1,
                precision="bf16-master",
                seed=seed + run,
                tensorboard=False,
            )
            torch.manual_seed(seed + run)
            if method == PRETRAINED:
                model = _from_pretrained(folder / "bert")
            else:
                model = BertForSequenceClassification(bert_config(plan, tokenizer))
            keep = folder / "classifier" if method == PRETRAINED and run == 0 else None
            result = fit(model, task, tokenizer, config, keep)
            steps = result.steps  # the first one's, which the clock may have cut short
            scores[method].append(Scores(**{k: result.held_out[k] for k in Scores.__annotations__}))
    assert steps is not None
    return Classification(
        question=text.question,
        train_examples=len(train.examples),
        test_examples=len(test.examples),
        steps=steps,
        epochs=steps * plan.finetune_batch / len(train.examples),
        scores=scores,
    )


def _from_pretrained(folder: Path) -> BertForSequenceClassification:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the heads of pretraining give way to a new one
        return BertForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, num_labels=len(LABELS)
        )
