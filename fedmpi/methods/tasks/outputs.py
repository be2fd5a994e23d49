"""Shared by all tasks: checks of targets and outputs, and torch's three reductions."""

import torch

from fedmpi.core.errors import UserError

# A network may put out either, see fedmpi.compute.sgd.casting.
FLOATS = (torch.float32, torch.bfloat16)


def reduced(losses, reduction):
    """``losses (n,)``, one a sample, as torch's losses reduce them: by "mean", "sum" or "none"."""
    if reduction == "none":
        return losses
    if reduction == "mean":
        return losses.mean()
    return losses.sum()


def widened(outputs):
    """``outputs`` with the precision that a loss needs: bfloat16 as float32."""
    if outputs.dtype == torch.bfloat16:
        return outputs.float()
    return outputs


def require_targets(fits, option, task, wanted, targets, way_out):
    """UserError where the data set's targets do not fit the task."""
    if fits:
        return
    kind = _dtype(targets)
    sample_shape = tuple(targets.shape[1:])
    if sample_shape:
        kind += f" of shape {sample_shape}"
    raise UserError(f"--task {task} needs {wanted} as targets, got {kind} a sample; {way_out}")


def _dtype(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def check_outputs(outputs, shape, what, option, way_out):
    """UserError unless a network's ``outputs`` are a finite float tensor of this shape.

    ``what`` names the outputs, "logits" for instance, and ``way_out`` follows a wrong shape.
    """
    wanted = f"a tensor {tuple(shape)} of {what}, float32"
    if not isinstance(outputs, torch.Tensor):
        name = type(outputs).__name__
        raise UserError(f"{option}: expected {wanted}, got a {name}; let forward return the "
                        f"{what} alone")
    got = f"a tensor {tuple(outputs.shape)} {_dtype(outputs)}"
    if outputs.shape != tuple(shape):
        raise UserError(f"{option}: expected {wanted}, got {got}; {way_out}")
    if outputs.dtype not in FLOATS:
        raise UserError(f"{option}: expected {wanted}, got {got}; leave dtypes to --precision")
    # The samples are finite, so the network is at fault.
    if not bool(outputs.isfinite().all()):
        raise UserError(f"{option}: expected finite {what} of finite samples, got NaN or infinity; "
                        "look at its initial weights, and for logarithms and divisions")
