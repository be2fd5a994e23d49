"""The contract of changed inputs and labels, by augmentations, noise, features and faults."""

import numpy as np

from fedmpi.plugins.contract.require import check_array, check_tensor, require


def check_inputs(changed, inputs, option):
    """``changed`` itself, if it is finite and of the shape and dtype of ``inputs``."""
    check_tensor(changed, inputs.shape, inputs.dtype, option, "the inputs that it returns")
    is_finite = bool(changed.isfinite().all())
    require(is_finite, option, "finite inputs", "NaN or infinity", "clamp them")
    return changed


def changed_labels(change, labels, classes, option):
    """``change(labels)`` as int64: as many integers in [0, classes), and a copy."""
    # A copy: a part that writes to its input must not spoil the client's labels.
    own = labels.copy()
    changed = change(own)
    unwritten = np.array_equal(own, labels)
    require(unwritten, option, "the labels that it is given to stay as they are",
            "some that it has written to", "work on labels.copy()")
    check_array(changed, labels.shape, "iu", option, "the labels that it returns")
    # A client without samples has no label.
    if changed.size:
        lowest = changed.min()
        highest = changed.max()
        inside = 0 <= lowest and highest < classes
        require(inside, option, f"labels in [0, {classes})", f"{lowest} to {highest}",
                "take them modulo the classes")
    return changed.astype(np.int64)
