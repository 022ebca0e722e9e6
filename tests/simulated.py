"""Simulated studies: what is right and what is wrong with the tests is known here."""

import numpy as np


def study(generator, techniques, seeds, examples, lift=0.0, seed_noise=0.15,
          mean=1.0):
    """Hits and misses (techniques, seeds, examples) of techniques of equal skill.

    Latent skill of a technique on an example: the example's difficulty, a liking of the technique
    for the example, and the luck of the seed, all drawn at random; the first technique may be
    better by `lift` (in standard deviations of the latent scale). A `mean` of 1 is right on 80%
    of the examples, 2.5 on 98%, 3.2 on 99.5%.
    """
    difficulty = generator.normal(size=(1, 1, examples))
    liking = 0.5 * generator.normal(size=(techniques, 1, examples))
    luck = seed_noise * generator.normal(size=(techniques, seeds, 1))
    noise = 0.5 * generator.normal(size=(techniques, seeds, examples))
    latent = mean + difficulty + liking + luck + noise
    latent[0] += lift
    return (latent > 0).astype(float)


def clustered_study(generator, techniques, seeds, sizes):
    """The same of clusters of examples, which share difficulty and liking; techniques are equal."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    difficulty = generator.normal(size=(1, 1, len(sizes)))[..., owner]
    liking = 0.5 * generator.normal(size=(techniques, 1, len(sizes)))[..., owner]
    luck = 0.15 * generator.normal(size=(techniques, seeds, 1))
    noise = 0.5 * generator.normal(size=(techniques, seeds, len(owner)))
    return (1.0 + difficulty + liking + luck + noise > 0).astype(float)
