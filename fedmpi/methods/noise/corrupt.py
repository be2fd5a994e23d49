"""What label noise is, and how it is laid over the clients' labels.

A kind of noise is a factory that returns ``Noise(rates, corrupt)``. Labels are corrupted once,
before training.
"""

import numpy as np


def apply(noise, labels_per_client, classes, gen_of):
    """``(noisy, true_rates)``: an array of labels per client and, (clients,), the fraction that
    really changed.

    ``gen_of(n)`` is the generator of client n; ``gen_of(clients)``, one past the last, draws
    the levels, and the next what clients have in common. ``classes`` 0: the targets are no
    classes, which no noise can change, else ValueError.
    """
    clients = len(labels_per_client)
    levels = noise.rates(clients, gen_of(clients))
    if not classes:
        if np.any(levels):
            raise ValueError("it changes classes, and these data have none; leave it out")
        return labels_per_client, np.zeros(clients)
    common = () if noise.shared is None else (noise.shared(classes, gen_of(clients + 1)),)
    noisy = [noise.corrupt(labels, level, classes, gen_of(n), *common)
             for n, (labels, level) in enumerate(zip(labels_per_client, levels))]
    changed = [np.count_nonzero(new != old) / max(len(old), 1) for new, old in zip(noisy, labels_per_client)]
    return noisy, np.array(changed)


def shared_rates(rate, share):
    """``rates`` that are ``rate`` for round(share * clients) clients drawn at random, and 0 for
    the others."""
    fraction(rate=rate, share=share)

    def rates(clients, gen):
        levels = np.zeros(clients)
        levels[gen.permutation(clients)[:round(share * clients)]] = rate
        return levels

    return rates


def flip_to_others(labels, level, classes, gen):
    """Each label becomes, with probability ``level``, one of the other ``classes - 1``, all
    alike."""
    shift = gen.integers(1, classes, len(labels))
    return np.where(gen.random(len(labels)) < level, (labels + shift) % classes, labels)


def fraction(**options):
    """Raise ``ValueError`` for the first option outside [0, 1]."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
