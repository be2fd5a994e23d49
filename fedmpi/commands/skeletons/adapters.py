"""NAME: the biases are trained, all else is frozen.

A network of 10 million weights has some thousand biases, which are all that travels.
"""

from fedmpi.core.parts import Adapters


def NAME(last: int = 1):
    """Biases, and the weights of the ``last`` matrices that masks may prune.

    Paper: Ben Zaken et al. 2022, "BitFit", arXiv 2106.10199.
    Example: fedmpi train --adapters NAME:NAME:last=2
    """
    if last < 1:
        raise ValueError(f"last must be >= 1, as masks need something to prune, got {last}")

    def attach(network, gen, base):
        # ``gen`` is a torch generator for new matrices, of which there are none here.
        named = list(network.named_parameters())
        matrices = [parameter for _, parameter in named if may_be_pruned(parameter)]
        for name, parameter in named:
            parameter.requires_grad_(name.endswith("bias"))
        for parameter in matrices[-last:]:
            parameter.requires_grad_(True)
        return network

    return Adapters(attach)


def may_be_pruned(parameter):
    """Whether a parameter is a matrix, and no model has said that it stays dense."""
    return parameter.dim() > 1 and getattr(parameter, "prunable", True)
