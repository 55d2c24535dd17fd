"""The mutants of tests/mutate.py still fit the kernels; the night runs them."""

import mutate
import pytest


@pytest.mark.parametrize("mutant", mutate.mutants(), ids=str)
def test_mutant_fits_its_file(mutant):
    assert mutant.kind in mutate.KINDS
    assert mutant.find != mutant.put
    assert (mutate.ROOT / mutant.file).read_text().count(mutant.find) == 1
    assert list((mutate.ROOT / "tests/ops").glob(f"test_{mutant.op}*.py"))
