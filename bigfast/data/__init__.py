"""Corpora, tokenizers, token shards and the micro-batches cut out of them."""

from bigfast.data.corpus import Corpus, Document, is_held_out, python_stdlib, read_corpus
from bigfast.data.labelled import Example, Labelled, read_labelled
from bigfast.data.pack import CausalBatches, LabelledBatches, MlmBatches, NspBatches
from bigfast.data.passage_pairs import passage_pairs
from bigfast.data.prepare import PrepareConfig, Prepared, open_prepared, prepare
from bigfast.data.shards import Shard, ShardWriter, open_shard, write_shard
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
    "PrepareConfig",
    "Prepared",
    "Shard",
    "ShardWriter",
    "Tokenizer",
    "is_held_out",
    "open_prepared",
    "open_shard",
    "passage_pairs",
    "prepare",
    "python_stdlib",
    "read_corpus",
    "read_labelled",
    "train_tokenizer",
    "write_shard",
]
