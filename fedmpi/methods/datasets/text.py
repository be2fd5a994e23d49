"""Text as tokens: characters, or byte pairs learnt from the training part.

The first part of a text trains, the last tests, as nanoGPT splits. Characters are all those of the
text, in the order of Unicode. Byte pairs (the ``tokenizers`` library) are learnt from the training
part alone, over bytes, so that they spell any text; the same text makes the same tokens.
"""

import os
from typing import Literal

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.stream import TEST_SHARE, dataset_of

Kind = Literal["char", "bpe"]
# Byte pairs begin with a token for each byte.
BYTES = 256


def text(data_dir, file: str = "text.txt", tokens: Kind = "char", vocab: int = 0,
         context: int = 64, test: float = TEST_SHARE):
    """The UTF-8 text in ``file``, relative to ``data_dir`` or absolute, as windows of tokens.

    ``vocab`` is the number of byte pairs, 0 for 1024 (of characters it follows from the text);
    ``context`` the tokens of a window; ``test`` the share of the text at its end that tests.

    Paper: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units",
        arXiv 1508.07909, for byte pairs.
    Example: fedmpi train --task lm --dataset text:file=book.txt,context=128 --model gpt
    """
    if not 0 < test < 1:
        raise ValueError(f"test must be in (0, 1), got {test}")
    path = os.path.join(data_dir, file)
    content = read_text(path)
    border = round(len(content) * (1 - test))
    parts = content[:border], content[border:]
    coder = coder_of(tokens, vocab, content, parts[0])
    train, held = [coder.encode(part) for part in parts]
    return dataset_of(
        train, held, context, len(coder.names),
        names=coder.names,
        token_bytes=tuple(map(bytes_per_token, parts, (train, held))),
        remarks=(tokens_line(coder, len(train), len(held)),),
        whose=path)


def read_text(path):
    """The text of a file; DataError in one line."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"cannot read the text {path} ({error.strerror}); name another file, or "
                        "say by --data-dir where it lies") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); convert "
                        "it with iconv -t UTF-8") from error
    if len(content) < 2:
        raise DataError(f"{path}: the text has {len(content)} characters; add some")
    return content


def coder_of(tokens, vocab, content, training):
    """A coder of the ``content``, of the kind ``tokens``; byte pairs are learnt by ``training``."""
    if tokens == "char":
        if vocab:
            raise ValueError("vocab has no effect with tokens=char, whose number follows from the "
                             "text; leave it out")
        return Characters(content)
    vocab = vocab or 1024
    if vocab <= BYTES:
        raise ValueError(f"vocab must be above {BYTES}, a token for each byte, got {vocab}")
    return Pairs(training, vocab)


class Characters:
    """Texts to and from tokens that are characters."""

    def __init__(self, content):
        self.names = tuple(sorted(set(content)))
        codes = [ord(name) for name in self.names]
        self.code_points = np.array(codes, np.uint32)

    def encode(self, content):
        """(n,) uint16 or int32."""
        points = np.frombuffer(content.encode("utf-32-le", "surrogatepass"), np.uint32)
        places = np.searchsorted(self.code_points, points)
        return smallest(places, len(self.names))

    def decode(self, ids):
        return "".join(self.names[number] for number in ids)


class Pairs:
    """Texts to and from byte pairs, learnt from a text."""

    def __init__(self, training, vocab):
        library = tokenizers()
        self.coder = library.Tokenizer(library.models.BPE())
        self.coder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.coder.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab, initial_alphabet=sorted(alphabet), show_progress=False)
        self.coder.train_from_iterator(training.splitlines(keepends=True), trainer)
        size = self.coder.get_vocab_size()
        self.names = tuple(self.coder.id_to_token(number) for number in range(size))

    def encode(self, content):
        """(n,) uint16 or int32."""
        lines = content.splitlines(keepends=True)
        coded = [line.ids for line in self.coder.encode_batch(lines)]
        ids = [number for line in coded for number in line]
        return smallest(ids, len(self.names))

    def decode(self, ids):
        return self.coder.decode(list(ids))


def tokenizers():
    """The library; UserError's cause in one line if it is not installed."""
    # Threads of the library would outnumber the ranks' cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers as library
    except ImportError as error:
        raise ValueError("tokens=bpe needs the library tokenizers: pip install 'fedmpi[text]', or "
                         "take tokens=char") from error
    return library


def joined(coder, texts):
    """``(tokens (n,), offsets)`` of texts, one after the other."""
    coded = [coder.encode(text) for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in coded])])
    return np.concatenate(coded), offsets


def smallest(ids, vocab):
    """(n,): the ids as uint16, or as int32 of a larger vocabulary."""
    dtype = np.uint16 if vocab <= 1 << 16 else np.int32
    return np.asarray(ids, dtype)


def bytes_per_token(content, ids):
    """Bytes of UTF-8 text for a token; NaN without tokens."""
    return len(content.encode()) / len(ids) if len(ids) else np.nan


def tokens_line(coder, num_train, num_test):
    """A line for the user about the tokens."""
    kind = "characters" if isinstance(coder, Characters) else "byte pairs"
    return (f"tokens: {num_train:,} training and {num_test:,} test tokens, of {len(coder.names):,} "
            f"{kind}")
