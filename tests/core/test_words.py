"""Numbers with their nouns."""

import pathlib
import re

import fedmpi
from fedmpi.core.words import plural


def test_a_noun_agrees_with_its_number():
    texts = [plural(number, "round") for number in (0, 1, 2, 2000)]
    assert texts == ["0 rounds", "1 round", "2 rounds", "2,000 rounds"]


def test_no_text_leaves_the_choice_to_its_reader():
    """``3 rank(s)``: two words for the reader to choose from."""
    sources = pathlib.Path(fedmpi.__file__).parent.rglob("*.py")
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    assert not [path for path, text in texts.items() if re.search(r"\} [A-Za-z ]+\(s\)", text)]
