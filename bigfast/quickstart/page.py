"""report.html: one file without references to any other, for a reader who was not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

from bigfast.page import data_uri, document
from bigfast.quickstart.figures import figures
from bigfast.quickstart.results import Results, Sample, Training
from bigfast.quickstart.table import score_cells
from bigfast.train.progress import clock


def write_page(results: Results, path: Path) -> None:
    parts = [
        _opening(results),
        _goals(results),
        _classification(results),
        _language(results),
        _swap(results),
        _curves(results),
        _meanings(results),
        _record(results),
    ]
    images = figures(results)
    body = "\n".join(parts)
    for name, png in images.items():
        body = body.replace(f"[figure {name}]", data_uri(png))
    path.write_text(document("BigFast quickstart", body), encoding="utf-8")


def _figure(name: str, caption: str) -> str:
    text = escape(caption)
    return (
        f'<figure><img src="[figure {name}]" alt="{text}"><figcaption>{text}</figcaption></figure>'
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], ours: Sequence[int] = ()) -> str:
    """Cells are text; the first column is set left, the others as numbers."""
    kind = lambda column: ' class="n"' if column else ""
    head = "".join(f"<th{kind(i)}>{escape(cell)}</th>" for i, cell in enumerate(header))
    lines = [
        f"<tr{' class=ours' if number in ours else ''}>"
        + "".join(f"<td{kind(i)}>{_cell(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _cell(text: str) -> str:
    """The first line, and any others smaller below it."""
    first, *others = map(escape, text.split("\n"))
    return "".join([first, *(f"<small>{line}</small>" for line in others)])


def _card(number: str, words: str) -> str:
    return f'<div class="card"><b>{escape(number)}</b>{escape(words)}</div>'


def _opening(results: Results) -> str:
    c, swap, b = results.classification, results.swap, results.compression
    pretrained = list(c.scores)[-1]
    fastest = min(t.median for t in swap.swapped.values())
    stock = min(t.median for t in swap.stock.values())
    cards = [
        _card(f"{c.mean_f1(pretrained):.3f}", "macro F1 of the pretrained BERT, fine-tuned"),
        _card(f"{b.gpt:.2f}", "bits per byte that the GPT needs for text it has not seen"),
        _card(f"{stock / fastest:.2f}x", "faster: a training step of transformers' BERT, swapped"),
        _card(clock(results.seconds), f"on {results.environment['threads']} threads, all of it"),
    ]
    return (
        "<h1>From text to trained models</h1>\n"
        f'<p class="dim">A tokenizer, a BERT and a GPT, trained on this machine on '
        f"{escape(results.source)}, and held against simpler methods on text that none of them "
        f'has seen.</p>\n<div class="cards">{"".join(cards)}</div>'
    )


def _goals(results: Results) -> str:
    rows = [
        f'<tr><td class="{"yes" if holds else "no"}">{"yes" if holds else "no"}</td>'
        f'<td>{escape(claim)}</td><td class="n">{escape(numbers)}</td></tr>'
        for claim, holds, numbers in results.goals()
    ]
    return f"<table>{''.join(rows)}</table>"


def _classification(results: Results) -> str:
    c = results.classification
    rows = [[method, *score_cells(runs)] for method, runs in c.scores.items()]
    return (
        f"<h2>What pretraining bought</h2>\n<p>The question: <b>{escape(c.question)}</b> Half of "
        "the pairs belong together; each text occurs once with either label, so that neither of "
        "the two says anything alone. It is a question of the kind that pretraining practises, on "
        f"the order of the training text. {c.train_examples:,} labelled pairs to learn from, "
        f"{c.test_examples:,} to be judged by, from documents that neither tokenizer nor "
        "pretraining nor fine-tuning has seen. The network without pretraining is the same one, "
        "with the same examples, in the same order, for as many steps.</p>\n"
        + _figure("f1", "Macro F1 on the held-out pairs.")
        + _table(["", "accuracy", "precision", "recall", "macro F1"], rows, [len(rows) - 1])
        + '<p class="small">Mean over three seeds of the fine-tuning and below it worst to '
        "best; the first two methods draw nothing.</p>"
    )


def _language(results: Results) -> str:
    c = results.compression
    rows = [
        ["byte 5-gram, Witten-Bell smoothing", f"{c.ngram:.3f}", f"{c.train_bytes / 1e6:.1f} MB"],
        ["GPT", f"{c.gpt:.3f}", f"{results.gpt.tokens / 1e6:.2f} million tokens of it"],
        ["xz -9", f"{c.xz:.3f}", "none: it learns as it goes"],
    ]
    return (
        "<h2>The GPT as a writer, and as a compressor</h2>\n<p>A model that predicts text well can "
        "store it in few bits. Bits for each byte of the same "
        f"{c.held_out_bytes / 1e6:.2f} MB of held-out text:</p>\n"
        + _figure("bits", "Bits per byte (less is better).")
        + _table(["", "bits per byte", "has learnt from"], rows, [1])
        + "<p>What it writes when given the beginning (in colour), drawn at temperature 0.7 from "
        "the likeliest tokens that together have a probability of 0.95:</p>\n"
        + "\n".join(map(_sample, results.samples))
    )


def _sample(sample: Sample) -> str:
    return f"<pre><b>{escape(sample.prompt)}</b>{escape(sample.continuation)}</pre>"


def _swap(results: Results) -> str:
    swap = results.swap
    rows = [
        [
            precision,
            *(f"{t.median:.1f} ms\n{t.p20:.1f}-{t.p80:.1f}" for t in (stock, swapped)),
            f"{stock.median / swapped.median:.2f}x",
        ]
        for precision, stock in swap.stock.items()
        for swapped in (swap.swapped[precision],)
    ]
    count = len(swap.losses["stock"])
    shown_steps = sorted({1, 2, (count + 1) // 2, count} & set(range(1, count + 1)))
    losses = [
        [name, *(f"{values[step - 1]:.6f}" for step in shown_steps)]
        for name, values in swap.losses.items()
    ]
    return (
        "<h2>Stock transformers, and the same model swapped</h2>\n<p>The BERT above was read by "
        "transformers, and copies of it were given BigFast's layers by <code>bigfast.swap(model)"
        "</code>. Both trained for a few steps in fp32, dropout off, beside a third copy in fp64, "
        "which counts as the truth. The largest error that swapping makes, in any output, gradient "
        f"or loss, is <b>{swap.excess:.2f}</b> of the allowed one, which is twice that of stock "
        "itself.</p>\n"
        + _table(["loss of step", *map(str, shown_steps)], losses)
        + f"<p>The time of a step on {swap.rows} rows ({swap.tokens:,} tokens):</p>"
        + _figure("swap", "A training step: forward, backward, AdamW; dropout on.")
        + _table(["training step", "stock", "swapped", "faster"], rows)
        + '<p class="small">Median, and below it the middle 60 %, of steps taken in '
        "turn, so that a slow moment hits all. The optimizer is torch's fused AdamW in each.</p>"
    )


def _curves(results: Results) -> str:
    rows = [_training("BERT", results.bert), _training("GPT", results.gpt)]
    return (
        '<h2>How the training went</h2>\n<div class="pair">'
        + _figure("bert", "Masked tokens and pairs of sentences.")
        + _figure("gpt", "Next tokens.")
        + "</div>"
        + _table(["", "parameters", "steps", "tokens", "time", "tokens/s", "MFU"], rows)
        + f"<p>Of held-out pairs of sentences the BERT told "
        f"{100 * results.bert.held_out['nsp_accuracy']:.1f} % right, follows or not, before any "
        "fine-tuning.</p>"
    )


def _training(name: str, run: Training) -> list[str]:
    return [
        name,
        f"{run.parameters:,}",
        f"{run.steps:,}",
        f"{run.tokens:,}",
        clock(run.seconds),
        f"{run.tokens_per_s:,.0f}",
        f"{100 * run.mfu:.1f} %",
    ]


MEANINGS = {
    "macro F1": "for each class the harmonic mean of precision (how many of those named so are) "
    "and recall (how many of those that are get named), then the mean over the classes. Always "
    "saying one of two equal classes gives 0.333, guessing 0.5, no mistake 1.",
    "bits per byte": "the cross entropy of the held-out text in bits, over its length in bytes of "
    "UTF-8. It does not depend on the tokenizer. 8 is no knowledge at all. The GPT sees at most "
    "its context of tokens back, and pays for the separator of documents too.",
    "byte 5-gram": "predicts each byte from the four before it, by counts in the same training "
    "bytes, interpolated down to shorter contexts.",
    "xz -9": "the size of the held-out text packed on its own; it has no training text, but sees "
    "repetitions at any distance.",
    "nats": "cross entropy to base e; exp of it is the number of equally likely choices that the "
    "model is left with.",
    "MFU": "floating-point operations of the model on real tokens (no padding, nothing recomputed) "
    "over what the fastest matrix product measured on this machine would do in the time.",
    "spread": "best seed minus worst seed; the larger one of the two networks compared.",
}


def _meanings(results: Results) -> str:
    items = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in MEANINGS.items()
    )
    return f"<h2>What each number means</h2>\n<dl>{items}</dl>"


def _record(results: Results) -> str:
    environment = results.environment
    installed = {name: version(name) for name in ("transformers", "tokenizers", "scikit-learn")}
    versions = ", ".join(f"{n} {v}" for n, v in {**environment["versions"], **installed}.items())
    facts = {
        "command": environment["command"],
        "machine": f"{environment['device']}, {environment['threads']} threads",
        "versions": versions,
        "commit": environment["commit"] or "not a git checkout",
        **{f"model: {name}": folder for name, folder in results.folders.items()},
    }
    stages = [[name, f"{seconds:.1f} s"] for name, seconds in results.stages.items()]
    settings = ", ".join(f"{name} {value}" for name, value in results.settings.items())
    return (
        "<h2>Record</h2>\n"
        + "<table>"
        + "".join(
            f"<tr><td>{escape(name)}</td><td><code>{escape(str(value))}</code></td></tr>"
            for name, value in facts.items()
        )
        + "</table>"
        + _table(["stage", "time"], [*stages, ["all", f"{results.seconds:.1f} s"]])
        + f'<p class="small">Settings: {escape(settings)}. Every number here is also in '
        "<code>results.json</code>; the folders of the models are read by transformers and by "
        "<code>from_pretrained</code> of BigFast.</p>"
    )
