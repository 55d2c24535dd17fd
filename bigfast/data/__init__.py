"""Corpora, tokenizers, token shards and the micro-batches cut out of them."""

from bigfast.data.corpus import Corpus, Document, is_held_out, python_stdlib, read_corpus
from bigfast.data.labelled import Example, Labelled, read_labelled
from bigfast.data.pack import CausalBatches, LabelledBatches, MlmBatches, NspBatches
from bigfast.data.passage_pairs import passage_pairs
from bigfast.data.shards import Shard, ShardWriter, open_shard, write_shard
from bigfast.data.stdlib_pairs import stdlib_pairs
from bigfast.data.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "CausalBatches",
    "Corpus",
    "Document",
    "Example",
    "Labelled",
    "LabelledBatches",
    "MlmBatches",
    "NspBatches",
    "Shard",
    "ShardWriter",
    "Tokenizer",
    "is_held_out",
    "open_shard",
    "passage_pairs",
    "python_stdlib",
    "read_corpus",
    "read_labelled",
    "stdlib_pairs",
    "train_tokenizer",
    "write_shard",
]
