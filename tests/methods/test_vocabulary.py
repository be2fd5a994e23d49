"""Tokens as texts and back, by nothing but their names."""

import pytest

from fedmpi.core.errors import UserError
from fedmpi.methods.datasets.text import byte_pairs, characters
from fedmpi.methods.datasets.vocabulary import vocabulary

TEXT = "It was the best of times,\nit was the wörst of tïmes; 漢字 and 🙂.\n" * 20


def spelled(words, ids):
    return "".join(words.spell(ids))


def test_characters_spell_what_they_encode():
    coder = characters(TEXT)
    words = vocabulary(list(coder.names), len(coder.names))
    assert words.kind == "characters" and words.encode(TEXT) == coder.encode(TEXT).tolist()
    assert spelled(words, words.encode(TEXT)) == TEXT
    assert coder.names[words.newline] == "\n"


@pytest.mark.parametrize("size", [257, 300, 400])
def test_byte_pairs_are_those_of_the_library(size):
    pytest.importorskip("tokenizers")
    coder = byte_pairs(TEXT, size)
    words = vocabulary(list(coder.names), len(coder.names))
    assert words.kind == "byte pairs"
    for line in (*TEXT.splitlines(keepends=True), "another  line, of é\n"):
        assert words.encode(line) == coder.encode(line).tolist()
        assert spelled(words, words.encode(line)) == line
    assert spelled(words, [words.newline]) == "\n"


def test_a_character_of_several_tokens_comes_with_the_last():
    pytest.importorskip("tokenizers")
    names = byte_pairs("aa", 257).names
    words = vocabulary(names, len(names))
    assert list(words.spell(words.encode("é字"))) == ["", "é", "", "", "字"]
    first, *rest = words.encode("é")
    # A byte that begins no character, and one that goes on with none.
    assert list(words.spell([first, *words.encode("a"), *rest])) == ["", "�a", "�"]


def test_a_sign_that_was_not_learnt_is_no_pair():
    """As GPT-2's last name, a sign for the end of a text."""
    pytest.importorskip("tokenizers")
    names = [*byte_pairs("aaaa aaaa", 258).names, "<|end|>"]
    words = vocabulary(names, len(names))
    assert spelled(words, words.encode("aaaa <|end|>")) == "aaaa <|end|>"
    assert len(names) - 1 not in words.encode("<|end|>")
    assert spelled(words, [len(names) - 1]) == "<|end|>"


def test_tokens_without_names_are_numbers():
    words = vocabulary([], 12)
    assert words.kind == "token numbers" and words.encode("3 11 0") == [3, 11, 0]
    assert spelled(words, [3, 11, 0]) == "3 11 0 "
    with pytest.raises(UserError, match="12 token numbers, and none of them is '12', 'x'"):
        words.encode("12 1 x 12")


def test_other_names_are_words():
    words = vocabulary(["to", "be", "or", "not"], 4)
    assert words.kind == "words" and words.encode("to be or not to be") == [0, 1, 2, 3, 0, 1]
    assert spelled(words, [3, 0]) == "not to "


def test_a_character_that_the_model_lacks_is_named():
    with pytest.raises(UserError, match="has 3 characters, and none of them is 'z'"):
        vocabulary(["a", "b", "c"], 3).encode("abz")
