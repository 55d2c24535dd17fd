"""Stock sources are those that the families were written for."""

import ast
import json

import pytest
import stock_sources
from stock_sources import MODULES, differences, digest, digests

TABLE = json.loads(stock_sources.TABLE.read_text())


@pytest.mark.parametrize("module", MODULES)
def test_is_known(module):
    """On other versions than the table's nobody has looked yet: a skip says at what to look."""
    known = TABLE["sources"].get(module, {})
    lines = list(differences(module, digests(module), known))
    if lines:
        lines.append("Then: python tests/hf/stock_sources.py")
        package = module.partition(".")[0]
        if stock_sources.version(package) != TABLE["versions"][package]:
            lines.insert(0, f"the table is of {package} {TABLE['versions'][package]}")
            pytest.skip("\n".join(lines))
        pytest.fail("\n".join(lines), pytrace=False)


def test_the_table_has_no_more():
    assert set(TABLE["sources"]) == set(MODULES)


SOURCE = """
class Norm(nn.Module):
    def forward(self, x, dim=-1):
        return x / x.norm(dim=dim)
"""
SAME = '''
@auto_docstring(custom_intro="A norm.")
class Norm(nn.Module):
    """A norm."""

    def forward(
        self, x: Tensor, dim: int = -1
    ) -> Tensor:  # of vectors
        """x over its norm."""
        return x / x.norm(dim=dim)
'''


def _digest(source: str) -> str:
    return digest(ast.parse(source).body[0])


def test_digests_are_of_code():
    assert _digest(SAME) == _digest(SOURCE)
    for old, new in [("-1", "-2"), ("x /", "x *"), ("(nn.Module)", ""), ("dim=dim", "dim")]:
        assert _digest(SOURCE.replace(old, new)) != _digest(SOURCE), new


@pytest.mark.parametrize(
    ("module", "name", "known", "found", "advice"),
    [
        ("transformers.models.bert.modeling_bert", "BertOutput", "a", "b",
         "bigfast.hf.bert replaces it in 'norm' by bigfast.hf.blocks.DenseAddNorm"),
        ("transformers.models.mpnet.modeling_mpnet", "MPNetSelfAttention", "a", "b",
         "bigfast.hf.mpnet keeps it stock in 'attention'"),
        ("transformers.models.bert.modeling_bert", "BertLayer", "a", "b", "leaves it"),
        ("transformers.models.bert.modeling_bert", "BertForMore", None, "b", "reads_padding"),
        ("transformers.models.bert.modeling_bert", "BertOutput", "a", None, "is gone"),
        ("transformers.pytorch_utils", "Conv1D", "a", "b", "bigfast/hf/blocks.py, linear_gelu"),
    ],
)  # fmt: skip
def test_says_what_to_look_at(module, name, known, found, advice):
    as_dict = lambda value: {"Other": "c"} | ({} if value is None else {name: value})
    (line,) = differences(module, as_dict(found), as_dict(known))
    assert line.startswith(f"{module}.{name} is ") and advice in line
