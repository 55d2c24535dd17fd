"""Hugging Face models on BigFast's ops: `swap` in place, `restore`, and `verify` the numbers."""

from .swap import SwapReport, restore, swap
from .verify import VerifyReport, verify

__all__ = ["SwapReport", "VerifyReport", "restore", "swap", "verify"]
