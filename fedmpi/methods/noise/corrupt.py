"""Shared by all kinds of label noise: noise over all clients' labels, and the usual levels.

A kind of noise is a factory that returns ``Noise(rates, corrupt)``. Labels are corrupted once,
before training.
"""

import numpy as np


def apply(noise, labels_per_client, classes, gen_of):
    """``(noisy, true_rates)``: an array of labels per client and, (clients,), the changed fraction.

    ``gen_of(n)`` is the generator of client n; ``gen_of(clients)``, one past the last, draws
    the levels, and the next one the things that clients have in common. ``classes`` 0: the
    targets are no classes, which no noise can change, else ValueError.
    """
    clients = len(labels_per_client)
    levels = noise.rates(clients, gen_of(clients))
    if not classes:
        if np.any(levels):
            raise ValueError("it changes classes, and these data have none; leave it out")
        return labels_per_client, np.zeros(clients)
    # One draw for all clients, a confusion matrix for instance.
    common = ()
    if noise.shared is not None:
        common = (noise.shared(classes, gen_of(clients + 1)),)
    noisy = []
    for n, labels in enumerate(labels_per_client):
        noisy.append(noise.corrupt(labels, levels[n], classes, gen_of(n), *common))
    return noisy, _changed_fractions(labels_per_client, noisy)


def _changed_fractions(before, after):
    """(clients,) float64: the fraction of each client's labels that changed; 0 without labels."""
    fractions = []
    for old, new in zip(before, after):
        num_changed = np.count_nonzero(new != old)
        fractions.append(num_changed / max(len(old), 1))
    return np.array(fractions)


def shared_rates(rate, share):
    """``rates``: ``rate`` for round(share * clients) clients drawn at random, 0 for the others."""
    fraction(rate=rate, share=share)

    def rates(clients, gen):
        # A fixed number of clients, not one by chance: runs can be compared.
        num_noisy = round(share * clients)
        noisy = gen.permutation(clients)[:num_noisy]
        levels = np.zeros(clients)
        levels[noisy] = rate
        return levels

    return rates


def hit(labels, level, gen):
    """(n,) bool: the labels that noise hits, each with probability ``level``."""
    return gen.random(len(labels)) < level


def flip_to_others(labels, level, classes, gen):
    """Each label becomes one of the other classes with probability ``level``, all alike."""
    # A shift of 0 would be the label itself.
    shift = gen.integers(1, classes, len(labels))
    others = (labels + shift) % classes
    return np.where(hit(labels, level, gen), others, labels)


def fraction(**options):
    """Raise ``ValueError`` for the first option outside [0, 1]."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
