"""NAME keeps the laws of faults, and does what it says."""

import numpy as np
import pytest

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_faults():
    laws.check("fault", "NAME:NAME")


def test_two_of_five_clients_have_the_same_labels_in_another_order():
    part = NAME(share=0.4)
    gen = np.random.default_rng(0)
    assert int(part.who(5, gen).sum()) == 2
    labels = np.arange(100)
    shuffled = part.labels(labels, 100, gen)
    assert sorted(shuffled) == labels.tolist() and not np.array_equal(shuffled, labels)


def test_a_share_above_one_is_refused():
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        NAME(share=2)
