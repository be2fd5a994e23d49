"""What all tasks share: checks of targets and outputs, and torch's three reductions."""

import torch

from fedmpi.core.errors import UserError

# A network may put out either, see fedmpi.compute.sgd.casting.
FLOATS = (torch.float32, torch.bfloat16)


def reduced(losses, reduction):
    """``losses (n,)``, one a sample, as torch's losses reduce them: by "mean", "sum" or "none"."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def widened(outputs):
    """``outputs`` with the precision that a loss needs: bfloat16 as float32."""
    return outputs.float() if outputs.dtype == torch.bfloat16 else outputs


def require_targets(fits, option, task, wanted, targets, way_out):
    """UserError where the data set's targets do not fit the task."""
    if not fits:
        kind = str(targets.dtype).removeprefix("torch.")
        sample = tuple(targets.shape[1:])
        shape = f" of shape {sample}" if sample else ""
        raise UserError(f"--task {task} needs {wanted} as targets, got {kind}{shape} a sample; "
                        f"{way_out}")


def check_outputs(outputs, shape, what, option, way_out):
    """UserError unless a network's ``outputs`` are a finite float tensor of this shape.

    ``what`` names them, "logits" for instance, and ``way_out`` follows where the shape is wrong.
    """
    wanted = f"a tensor {tuple(shape)} of {what}, float32"
    if not isinstance(outputs, torch.Tensor):
        name = type(outputs).__name__
        raise UserError(f"{option}: expected {wanted}, got a {name}; let forward return the "
                        f"{what} alone")
    kind = str(outputs.dtype).removeprefix("torch.")
    found = f"a tensor {tuple(outputs.shape)} {kind}"
    if outputs.shape != tuple(shape):
        raise UserError(f"{option}: expected {wanted}, got {found}; {way_out}")
    if outputs.dtype not in FLOATS:
        raise UserError(f"{option}: expected {wanted}, got {found}; leave dtypes to --precision")
    if not bool(outputs.isfinite().all()):
        raise UserError(f"{option}: expected finite {what} of finite samples, got NaN or infinity; "
                        "look at its initial weights, and for logarithms and divisions")
