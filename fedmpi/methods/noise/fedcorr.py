"""FedCorr's label noise (Xu et al. 2022, arXiv 2204.04677): noisy clients, each of its own level.

    with probability rho a client is noisy, of level mu ~ U(tau, 1)
    y -> any class with probability mu

The fresh label is drawn from all C classes, the true one included, so the recorded rate, the
fraction that really changed, is about mu (C - 1) / C.
"""

import numpy as np

from fedmpi.core.parts import Noise
from fedmpi.methods.noise.corrupt import fraction
from fedmpi.methods.noise.symmetric import symmetric


def fedcorr(rho: float = 0.6, tau: float = 0.5):
    """Noise of level U(tau, 1) on every client with probability ``rho``.

    Paper: Xu et al. 2022, "FedCorr: Multi-Stage Federated Learning for Label Noise Correction",
        arXiv 2204.04677.
    """
    fraction(rho=rho, tau=tau)

    def rates(clients, gen):
        is_noisy = gen.random(clients) < rho
        levels = gen.uniform(tau, 1, clients)
        return np.where(is_noisy, levels, 0.0)

    corrupt = symmetric(include_true=True).corrupt
    return Noise(rates, corrupt)
