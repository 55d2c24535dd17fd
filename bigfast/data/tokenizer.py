"""Train, save and load tokenizers: WordPiece, byte-level BPE and characters.

On disk a tokenizer is `tokenizer.json` and `tokenizer_config.json`, which AutoTokenizer of
transformers reads too, and any folder with these two that transformers wrote can be loaded here.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

BERT_SPECIAL = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
}
END_OF_TEXT = "<|endoftext|>"
GPT_SPECIAL = {"bos": END_OF_TEXT, "eos": END_OF_TEXT, "pad": END_OF_TEXT, "unk": END_OF_TEXT}
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
KINDS = ("wordpiece", "bpe", "char")
ALPHABET = 1000  # characters that WordPiece keeps, the rarer ones become [UNK]
SAMPLE_CHARS = 16 << 20  # of training text: more changes few entries and takes longer


def _library() -> ModuleType:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ImportError(
            "tokenizers is needed to train or load a tokenizer: pip install 'bigfast[data]'"
        ) from error
    return tokenizers


class Tokenizer:
    """A `tokenizers.Tokenizer` (`.backend`) and the special token of each role (`.special`).

    special: role ("pad", "unk", "cls", "sep", "mask", "bos", "eos") -> token. Text is encoded
    without special tokens unless asked; whoever packs rows adds them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special: dict[str, str]) -> None:
        for role, token in special.items():
            if role not in ROLES:
                raise ValueError(f"special: expected roles of {ROLES}, got {role!r}")
            if backend.token_to_id(token) is None:
                raise ValueError(f"special: {role} is {token!r}, which is not in the vocabulary")
        self.backend = backend
        self.special = dict(special)

    @property
    def vocab_size(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def special_ids(self) -> list[int]:
        """Ids, sorted, of all special tokens: those with a role and those marked as special."""
        added = self.backend.get_added_tokens_decoder()
        ids = {id for id, token in added.items() if token.special}
        return sorted(ids | {self.id(role) for role in self.special})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the vocabulary and rules: equal where equal text gives equal ids."""
        state = json.loads(self.backend.to_str())
        rules = {key: value for key, value in state.items() if key not in ("truncation", "padding")}
        canonical = json.dumps([rules, self.special], sort_keys=True, ensure_ascii=True)
        return sha256(canonical.encode("ascii")).hexdigest()

    def id(self, role: str) -> int:
        """The id of the special token of a role; ValueError where there is none."""
        if role not in self.special:
            raise ValueError(f"this tokenizer has no {role} token; it has {sorted(self.special)}")
        number = self.backend.token_to_id(self.special[role])
        assert number is not None  # checked at construction
        return number

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, in parallel (TOKENIZERS_PARALLELISM=0 turns that off)."""
        rows = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [row.ids for row in rows]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{f"{role}_token": token for role, token in self.special.items()},
        }
        self.backend.save(str(folder / "tokenizer.json"))
        text = json.dumps(config, indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="ascii")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Tokenizer:
        """Reads a folder written by `save_pretrained`, ours or transformers'."""
        file, config_file = Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json"
        library = _library()
        if not file.is_file():
            raise ValueError(f"folder: {file} does not exist")
        try:
            backend = library.Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{file}: not a tokenizer ({error})") from error
        backend.no_truncation()
        backend.no_padding()
        try:
            config = json.loads(config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{config_file}: cannot be read ({error})") from error
        special = {}
        for role in ROLES:
            token = config.get(f"{role}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if token is not None:
                special[role] = token
        return cls(backend, special)


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: str = "wordpiece",
    vocab_size: int = 8192,
    bert: bool | None = None,
    lowercase: bool = False,
    sample_chars: int = SAMPLE_CHARS,
) -> Tokenizer:
    """Trains a tokenizer of a kind: "wordpiece", "bpe" (byte-level) or "char".

    texts: documents; of more than `sample_chars` an even sample is used (characters: all of them).
    bert: give it [PAD] [UNK] [CLS] [SEP] [MASK] (ids 0 to 4; the default for WordPiece), else
    <|endoftext|> of GPT-2 (id 0). lowercase: WordPiece only. vocab_size: an upper bound; "char"
    ignores it. The same texts give the same tokenizer.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    if lowercase and kind != "wordpiece":
        raise ValueError(f"lowercase: only wordpiece folds case, got kind {kind!r}")
    bert = kind == "wordpiece" if bert is None else bert
    special = dict(BERT_SPECIAL if bert else GPT_SPECIAL)
    library = _library()
    if kind == "char":
        backend = _characters(library, texts, special)
    else:
        smallest = len(set(special.values())) + (256 if kind == "bpe" else 1)
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size: expected {smallest} or more for {kind}, got {vocab_size}"
            )
        sample = sample_texts(texts, sample_chars)
        if kind == "bpe":
            backend = _byte_level_bpe(library, sample, special, vocab_size)
        else:
            backend = _wordpiece(library, sample, special, vocab_size, lowercase)
    if bert:
        _add_template(library, backend, special)
    return Tokenizer(backend, special)


def sample_texts(texts: Iterable[str], sample_chars: int) -> list[str]:
    """Every k-th text, the smallest power of two k for which they take at most `sample_chars`."""
    kept: list[str] = []
    size, stride = 0, 1
    for number, text in enumerate(texts):
        if number % stride:
            continue
        kept.append(text)
        size += len(text)
        while size > sample_chars and len(kept) > 1:
            kept, stride = kept[::2], 2 * stride
            size = sum(map(len, kept))
    return kept


def _distinct(special: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(special.values()))


def _wordpiece(
    library: ModuleType, texts: list[str], special: dict[str, str], vocab_size: int, lowercase: bool
) -> tokenizers.Tokenizer:
    backend = library.Tokenizer(library.models.WordPiece(unk_token=special["unk"]))
    backend.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    backend.decoder = library.decoders.WordPiece()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(backend.normalizer.normalize_str(text))
    room = min(ALPHABET, (vocab_size - len(special)) // 2)
    frequent = sorted((-n, char) for char, n in counts.items() if not char.isspace())[:room]
    alphabet = sorted(char for _, char in frequent)
    # The trainer numbers the pieces ##c in the order of a hash table, new in each process, and
    # breaks ties by number. As special tokens they have fixed numbers; only the model is kept.
    pieces = [*_distinct(special), *(f"##{char}" for char in alphabet)]
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=pieces,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=sys.stderr.isatty(),
    )
    scratch = library.Tokenizer(backend.model)
    scratch.normalizer, scratch.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    scratch.train_from_iterator(texts, trainer, length=len(texts))
    backend.model = library.models.WordPiece(
        scratch.get_vocab(with_added_tokens=False), unk_token=special["unk"]
    )
    backend.add_special_tokens(_distinct(special))
    return backend


def _byte_level_bpe(
    library: ModuleType, texts: list[str], special: dict[str, str], vocab_size: int
) -> tokenizers.Tokenizer:
    backend = library.Tokenizer(library.models.BPE())
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_distinct(special),
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(texts, trainer, length=len(texts))
    return backend


def _characters(
    library: ModuleType, texts: Iterable[str], special: dict[str, str]
) -> tokenizers.Tokenizer:
    alphabet = sorted(set().union(*texts))
    vocabulary = {token: id for id, token in enumerate([*_distinct(special), *alphabet])}
    # A BPE without merges: each character is its own token.
    backend = library.Tokenizer(library.models.BPE(vocabulary, [], unk_token=special["unk"]))
    backend.decoder = library.decoders.Fuse()
    backend.add_special_tokens(_distinct(special))
    return backend


def _add_template(
    library: ModuleType, backend: tokenizers.Tokenizer, special: dict[str, str]
) -> None:
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = library.processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
