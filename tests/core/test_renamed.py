"""An old name of a contract's field, or type, ends in one line with the new name."""

import pytest

from fedmpi.core.parts import Dataset, Facts, Fault, Pruner, Replies, Task, Updates


def test_a_pruner_with_the_old_name_of_a_field_is_refused_with_the_new_one():
    with pytest.raises(ValueError, match="^the field 'residuals' of Pruner is called 'keeps_pruned_values' now$"):
        Pruner(None, None, residuals=True)
    with pytest.raises(ValueError, match="'needs_previous_model'"):
        Fault(None, 0.0, stale=True)
    with pytest.raises(ValueError, match="'remarks'"):
        Dataset(*[None] * 7, told=())
    assert Pruner(None, None, keeps_pruned_values=True).keeps_pruned_values


@pytest.mark.parametrize("cls, old, new", [
    (Task, "live", "trainable"), (Task, "given", "message"), (Updates, "root", "server_update"),
    (Replies, "uses", "macs_per_weight"),
    (Facts, "given", "user_options"), (Facts, "judged", "estimators")])
def test_an_old_field_that_is_read_says_the_new_one(cls, old, new):
    part = cls._make([None] * len(cls._fields))
    assert getattr(part, new) is None
    with pytest.raises(AttributeError, match=f"^the field '{old}' of {cls.__name__} is called '{new}' now$"):
        getattr(part, old)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        part.nonsense
    assert not hasattr(part, "nonsense")


def test_an_old_type_that_is_imported_says_the_new_one():
    with pytest.raises(ImportError, match="Known is called ClientRecords now"):
        from fedmpi.core.parts import Known  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        from fedmpi.core.parts import Nonsense  # noqa: F401
