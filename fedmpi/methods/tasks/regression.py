"""Regression: one or more values a sample.

    mse   = mean over outputs of (output - target)^2
    mae   = mean over outputs of |output - target|
    huber = mean over outputs of e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2)

Targets are (n,) or (n, d) float32, outputs (n, d), d = 1 for targets (n,). The squared error of
all samples together is the mean over samples, so unlike its root it adds up over clients.
"""

from typing import Literal

from torch.nn import functional as F

from fedmpi.core.effect import needs
from fedmpi.core.parts import Objective
from fedmpi.methods.tasks.outputs import check_outputs, reduced, require_targets, widened

# The loss of a coalition's model whose own is larger, or not a number. Float64 still tells a
# ten-thousandth beside it.
WORST = 1e12


@needs(delta="loss=huber")
def regression(loss: Literal["mse", "huber"] = "mse", headline: Literal["mae", "mse"] = "mae",
               delta: float = 1.0):
    """Values: squared or Huber error, with mean absolute and mean squared error as metrics.

    ``headline`` is the metric by which models are compared and selected. ``delta`` is where
    Huber's loss turns from squared to absolute, in units of the targets.

    Paper: none for mse; Huber 1964, "Robust Estimation of a Location Parameter".
    Example: fedmpi train --task regression --dataset synthetic:samples=200,targets=values
        --model logistic
    """
    if not delta > 0:
        raise ValueError(f"delta must be > 0, got {delta}")

    def squared(outputs, targets, reduction="mean"):
        return reduced(mse(outputs, targets), reduction)

    def huber(outputs, targets, reduction="mean"):
        values, wanted = _alike(outputs, targets)
        losses = F.huber_loss(values, wanted, reduction="none", delta=delta)
        return reduced(losses.mean(1), reduction)

    chosen = {"mse": squared, "huber": huber}[loss]
    metrics = {"mae": mae, "mse": mse}
    return Objective(chosen, metrics, headline, check, higher=False, unit="1", worst=WORST)


def mae(outputs, targets):
    """(n,) float32: the mean absolute error of each sample."""
    values, wanted = _alike(outputs, targets)
    return (values - wanted).abs().mean(1)


def mse(outputs, targets):
    """(n,) float32: the mean squared error of each sample."""
    values, wanted = _alike(outputs, targets)
    return (values - wanted).square().mean(1)


def _alike(outputs, targets):
    """Both as (n, d): torch would spread targets (n,) over outputs (n, 1) to (n, n)."""
    # bfloat16 has 8 bits, too few for a difference.
    values = widened(outputs)
    wanted = targets.reshape(values.shape).to(values.dtype)
    return values, wanted


def check(outputs, targets, classes, option):
    """UserError unless targets are values and there is an output for each."""
    are_floats = targets.dtype.is_floating_point
    fits = are_floats and targets.ndim in (1, 2)
    way_out = ("take --task classification for classes, or a data set of values: "
               "--dataset synthetic:targets=values, or your own FILE.h5:targets=values")
    require_targets(fits, option, "regression", "values, float32", targets, way_out)
    n = len(targets)
    d = targets.shape[1] if targets.ndim == 2 else 1
    way_out = (f"the factory is given the {d} outputs as its second argument, and {n} samples "
               f"must make {n} rows")
    check_outputs(outputs, (n, d), "values", option, way_out)
