"""Arguments of small runs."""

SIZES = {
    "clm": ["--model.n_layer=1", "--model.n_head=2", "--model.n_embd=16", "--clm.block_size=16"],
    "mlm": [
        "--model.num_hidden_layers=1",
        "--model.num_attention_heads=2",
        "--model.hidden_size=16",
        "--model.intermediate_size=32",
        "--mlm.max_seq_length=24",
        "--data.vocab_size=120",
    ],
}
SIZES["mlm+nsp"] = SIZES["mlm"]
FAST = ["--train.tensorboard=false", "--train.logging_steps=1", "--train.learning_rate=5e-3"]


def pretrain(task, corpus, output_dir, *more, steps=4):
    data = ["--data.path", corpus, *(["--data.tokenizer=char"] if task == "clm" else [])]
    return [
        "pretrain", "--task", task, *data, "--output_dir", output_dir, f"--train.max_steps={steps}",
        *SIZES[task], *FAST, *more,
    ]  # fmt: skip
