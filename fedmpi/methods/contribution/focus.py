"""FOCUS: how badly a client and the server fit each other's samples (arXiv 2001.11359).

    E_n = L(x; client n's samples) + L_val(x + Delta_n)
    phi_n = 1 - exp(alpha E_n) / sum_m exp(alpha E_m)

The first term is the received model on the client's data, which the client reports: one float. The
second is the client's own model on the server's samples, one utility a client. Wrong labels raise
both (Chen et al. 2020). The sum over the cohort makes phi a credibility in [0, 1] whose mean is
1 - 1/C: in a large cohort all are close to 1 and only the order tells clients apart.

Sees: clients' losses, labels of the server's own samples. Blind spots: it believes the loss
that a client reports; skewed labels raise the second term just as wrong ones do; a cohort of
one scores 0.
"""

import numpy as np
import torch

from fedmpi.core.parts import Contribution, Scores


def focus(alpha: float = 1.0):
    """Credibility by mutual cross-entropy.

    Paper: Chen et al. 2020, "FOCUS: Dealing with Label Quality Disparity in Federated Learning",
        arXiv 2001.11359.
    Up: one float more than the update, the loss of the received model.
    Down: nothing more.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}")

    def score(state, cohort, utility, gen):
        """The cohort's credibilities."""
        C = len(cohort.clients)
        reported = [float(answer["loss"][0]) for answer in cohort.reports]
        on_clients = torch.tensor(reported, dtype=torch.float64)
        single = torch.eye(C, dtype=torch.bool)
        # Utilities are minus losses.
        on_server = -utility(single)
        E = on_clients + on_server
        return Scores(credibility(alpha * E))

    return Contribution(
        score,
        report=report,
        validated=True,
        classes=True,
        sees="clients' losses, the server's samples",
    )


def report(task):
    """The loss of the received model on the client's samples, float64 (1,)."""
    # In float64, as utilities are.
    logits = outputs(task).double()
    loss = task.objective.loss(logits, task.labels)
    return {"loss": np.array([float(loss)])}


def credibility(E):
    """``(C,) float64``: one minus the softmax of ``E (C,)``."""
    return 1 - E.softmax(dim=0)


@torch.no_grad()
def outputs(task, block=500):
    """``(n, classes)``: the model's outputs for the task's own inputs, in evaluation mode.

    The model's modes are then as before. No statistics, gradients or random streams are touched.
    """
    model = task.model
    # Frozen norms may be in evaluation mode while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    pieces = [model(inputs) for inputs in task.inputs.split(block)]
    for module, training in modes:
        module.training = training
    return torch.cat(pieces)
