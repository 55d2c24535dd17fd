"""The main job: text in; a tokenizer, a BERT, a GPT, their numbers and a report out."""

from bigfast.quickstart.plan import QuickstartConfig
from bigfast.quickstart.run import quickstart

__all__ = ["QuickstartConfig", "quickstart"]
