"""What the sources of stock classes say, as digests in a table: a change has to be looked at.

    python tests/hf/stock_sources.py        writes tests/hf/stock_sources.json

A swapped module computes what its stock class did when the body in bigfast/hf was written; the
table says of which sources that is true. A digest is of what a definition does: its comments,
docstrings, annotations, formatting and f-strings (they are messages) do not count.
"""

import ast
import hashlib
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from bigfast.hf.swap import FAMILIES

TABLE = Path(__file__).with_name("stock_sources.json")
# Of these modules the definitions that ours rely on, and where.
SHARED = {
    "transformers.activations": {
        "blocks.py, _gelu_form and gated": (
            "FastGELUActivation", "GELUActivation", "GELUTanh", "NewGELUActivation",
            "SiLUActivation",
        ),
    },
    "transformers.integrations.sdpa_attention": {
        "attention.py, attend; attn_implementation.py": ("sdpa_attention_forward",),
    },
    "transformers.loss.loss_utils": {
        "heads.py, MaskedLM._loss and CausalLM._train": (
            "ForCausalLMLoss", "ForMaskedLMLoss", "fixed_cross_entropy",
        ),
    },
    "transformers.masking_utils": {
        "attention.py, no_mask: masks of four dims have to be passed on untouched": (
            "_preprocess_mask_arguments", "create_bidirectional_mask",
            "create_bidirectional_sliding_window_mask", "create_causal_mask",
            "create_sliding_window_causal_mask",
        ),
        "attn_implementation.py, _leaves": (
            "and_masks", "bidirectional_mask_function", "causal_mask_function",
            "packed_sequence_mask_function", "sliding_window_bidirectional_overlay",
            "sliding_window_overlay",
        ),
    },
    "transformers.modeling_layers": {
        "swap.py, Body: a replacement stands before it": ("GradientCheckpointingLayer",),
    },
    "transformers.modeling_utils": {"attention.py, _Interface": ("AttentionInterface",)},
    "transformers.pytorch_utils": {
        "blocks.py, linear_gelu and ChunkFeedForward": ("Conv1D", "apply_chunking_to_forward"),
    },
    "transformers.utils.generic": {
        "packing.py and heads.py, return_dict": ("can_return_tuple", "merge_with_config_defaults"),
    },
    "transformers.utils.output_capturing": {
        "packing.py, PooledEncoder; swap.py, __qualname__": ("capture_outputs",),
    },
    "torch.nn.modules.activation": {"torch_nn.py": ("MultiheadAttention",)},
    "torch.nn.modules.normalization": {"torch_nn.py; blocks.py": ("LayerNorm", "RMSNorm")},
    "torch.nn.modules.transformer": {
        "torch_nn.py": ("TransformerEncoder", "TransformerEncoderLayer", "_detect_is_causal_mask"),
    },
}  # fmt: skip
MODULES = (*FAMILIES, *SHARED)

_IGNORED = ("annotation", "returns", "type_comment", "ctx", "kind", "type_params")


def digest(definition: ast.AST) -> str:
    return hashlib.sha256(repr(_plain(definition)).encode()).hexdigest()[:12]


def _plain(node: object) -> object:
    """A syntax tree as tuples that all versions of Python agree on."""
    if isinstance(node, ast.JoinedStr):
        return "text"
    if isinstance(node, list):
        return tuple(_plain(n) for n in node if not _is_text(n))
    if isinstance(node, ast.AST):
        fields = ((n, _plain(v)) for n, v in ast.iter_fields(node) if n not in _IGNORED)
        return (type(node).__name__, *(field for field in fields if field[1] not in ((), "None")))
    return repr(node)


def _is_text(node: ast.AST) -> bool:
    """Whether it is a docstring, or a decorator that writes one."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    decorator = node.func if isinstance(node, ast.Call) else node
    return isinstance(decorator, ast.Name) and decorator.id == "auto_docstring"


def digests(module: str) -> dict[str, str]:
    """Name -> digest of the classes and functions of a module; of a shared one, those relied on."""
    source = inspect.getsource(importlib.import_module(module))
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = {n.name: digest(n) for n in ast.parse(source).body if isinstance(n, kinds)}
    if module in SHARED:
        names = [name for names in SHARED[module].values() for name in names]
        return {name: found[name] for name in names if name in found}
    return found


def differences(module: str, found: Mapping[str, str], known: Mapping[str, str]) -> Iterator[str]:
    """What to look at, one line for each definition that is not as the table knows it."""
    for name in sorted(found.keys() | known.keys()):
        if found.get(name) != known.get(name):
            state = "changed" if name in found and name in known else "gone"
            state = state if name in known else "new"
            yield f"{module}.{name} is {state}: {_advice(module, name, state)}"


def _advice(module: str, name: str, state: str) -> str:
    if module in SHARED:
        where = next(w for w, names in SHARED[module].items() if name in names)
        return f"look at bigfast/hf/{where}"
    file = FAMILIES[module]
    if state == "new":
        return f"should {file} replace it? If it reads outputs at padding, name it in reads_padding"
    if state == "gone":
        return f"{file} may name it"
    family = importlib.import_module(file).family
    rules = {stock.__name__: rule for stock, rule in family.rules.items()}
    if name not in rules:
        return f"{file} leaves it, look at how it calls replaced classes and reads their outputs"
    fusion, replacement, _ = rules[name]
    if replacement is None:
        return f"{file} keeps it stock in {fusion!r}, look whether the reason still holds"
    body = replacement.__mro__[1]
    return f"{file} replaces it in {fusion!r} by {body.__module__}.{body.__name__}, compare them"


def version(package: str) -> str:
    return metadata.version(package).partition("+")[0]


def write() -> None:
    packages = sorted({module.partition(".")[0] for module in MODULES})
    table = {
        "versions": {package: version(package) for package in packages},
        "sources": {module: digests(module) for module in sorted(MODULES)},
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    write()
