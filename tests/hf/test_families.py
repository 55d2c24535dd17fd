"""Every family and every head of it: swapped equals stock, by the policy."""

import families
import pytest
import torch
from families import FAMILIES, inputs_for, make

import bigfast

CASES = [(family, head) for family in FAMILIES for head in families.heads(family)]


def verified(family, head, dtype=torch.float32, padding="right", **changes):
    model = make(family, head, dtype, **changes)
    return bigfast.verify(model, inputs_for(model, padding), timed=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "head"), CASES)
def test_equals_stock(family, head, dtype):
    report = verified(family, head, getattr(torch, dtype))
    assert report.ok, str(report)
