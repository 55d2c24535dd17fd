"""`bigfast quickstart`: from text to trained models and a report, in a few minutes."""

from __future__ import annotations

from collections.abc import Sequence

from bigfast.cli.settings import Settings
from bigfast.train.extras import require

EXAMPLE = """\
  bigfast quickstart
  bigfast quickstart --text my/documents --minutes 20 --output_dir runs/mine"""


def run(arguments: Sequence[str]) -> int:
    packages = ("matplotlib", "rich", "safetensors", "sklearn", "tokenizers", "transformers")
    require(*packages, purpose="quickstart", extra="all")
    from bigfast.quickstart import QuickstartConfig, quickstart

    settings = Settings(
        "quickstart",
        "Train a tokenizer, a BERT and a GPT on real text, fine-tune the BERT, compare it with "
        "simpler methods, swap a stock transformers BERT, and write report.html. The text is the "
        "running Python's own standard library, or yours.",
        EXAMPLE,
    )
    settings.add_group(QuickstartConfig, None)
    chosen = settings.parse(arguments)
    quickstart(QuickstartConfig(**{k: chosen[k] for k in QuickstartConfig.__dataclass_fields__}))
    return 0
