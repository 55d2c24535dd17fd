"""python tests/hf/verified.py FILE.md [FAMILY ...]: what `bigfast verify` finds, family by family.

Every family of families.py and every head that transformers has for it, with random weights: four
times as wide as in the tests, so that errors are no chance and times are those of products.
"""

import sys
from pathlib import Path

import families
import torch
import transformers
from families import FAMILIES, INNER, VOCABULARY, WIDTH, inputs_for, make
from stock_and_swapped import main_head

import bigfast
from bigfast.hf import VerifyReport
from bigfast.tolerance import FACTOR

_GROWN = {WIDTH: 256, INNER: 1024, VOCABULARY: 4096}
_BATCH = {"size": 16, "seqlen": 32}
_KINDS = ("outputs", "gradients", "losses")


def verified(family: str, head: str) -> VerifyReport:
    sizes = FAMILIES[family].sizes
    grown = {k: _GROWN[v] for k, v in sizes.items() if isinstance(v, int) and v in _GROWN}
    model = make(family, head, **grown)
    return bigfast.verify(model, inputs_for(model, **_BATCH), timed=head == main_head(family))


def page(chosen: list[str]) -> tuple[str, bool]:
    """The page, and whether everything on it is within the policy."""
    lines, all_ok, conditions = [], True, ""
    for family in chosen:
        for head in families.heads(family):
            torch.manual_seed(0)
            report = verified(family, head)
            print(report, file=sys.stderr, flush=True)
            all_ok &= report.ok
            lines.append(_row(report))
            conditions = report.conditions.partition("; truth")[2]
    return _HEAD.format(
        transformers=transformers.__version__, bigfast=bigfast.__version__, factor=f"{FACTOR:g}",
        conditions=f"truth{conditions}", count=len(lines), families=len(chosen),
        verdict="All are within the policy." if all_ok else "NOT ALL ARE WITHIN THE POLICY.",
    ) + "\n".join(lines) + "\n", all_ok  # fmt: skip


_HEAD = """\
# Verified: stock against swapped, family by family

Written by `make verified`: `bigfast verify` on models of random weights, four times as wide as in
the tests. {count} models of {families} families of transformers {transformers}, bigfast {bigfast}.
**{verdict}** fp32, dropout off, sequences padded on the right; {conditions}.

Errors are in units of stock's own rounding error, {factor} of which the policy allows; `*` stands
for all layers. What exceeds them is run on three sets of weights next to each other, and the
median counts. The last column is a training step with dropout against the fastest setting of
stock's, of one head per family: models so small spend much of it in Python, README has the real
sizes.

| model | outputs | gradients | losses of 20 steps | worst tensor | faster |
|---|---|---|---|---|---|
"""


def _row(report: VerifyReport) -> str:
    worst = {kind: max(report.errors.get(kind, {"": 0.0}).values()) for kind in _KINDS}
    errors = " | ".join(
        f"{FACTOR * worst[kind]:.2f}" if kind in report.errors else "" for kind in _KINDS
    )
    name = report.worst[0] if report.ok else f"**NOT WITHIN THE POLICY** {report.worst[0]}"
    speed = f"{report.speedup():.2f}x" if report.costs else ""
    return f"| {report.model} | {errors} | {name} | {speed} |"


def main(arguments: list[str]) -> int:
    """0 where all is within the policy, else 1."""
    path, *chosen = arguments
    text, all_ok = page(chosen or list(FAMILIES))
    Path(path).write_text(text, encoding="utf-8")
    return 0 if all_ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
