"""Epsilon, which noisy steps on random batches reveal of an example, counted by Opacus."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ftlab.errors import InputError

Accountant = Literal["rdp", "prv"]
NOISIEST = 1e6  # at which Opacus gives up as well
VAGUE = 100.0  # epsilon beyond which nothing is promised, and the finer accountant takes minutes


@dataclass(frozen=True)
class Steps:
    """Steps of a fit, each of which sees every example by the same chance.

    Attributes:
        rate: the chance.
        count: number of steps.
        delta: chance that epsilon does not hold.
    """

    rate: float
    count: int
    delta: float


@cache
def epsilon_of(noise: float, steps: Steps, accountant: Accountant) -> float:
    """Epsilon of steps with a noise multiplier above 0; no accountant gives less than there is.

    Args:
        noise: standard deviation of the noise over the clipping norm.
        steps: of the fit.
        accountant: `rdp` (Mironov 2017) or the finer `prv` (Gopi, Lee, Wutschitz 2021).
    """
    if not steps.count:
        return 0.0
    made: Any = _opacus().create_accountant(mechanism=accountant)
    made.history = [(noise, steps.rate, steps.count)]
    with warnings.catch_warnings():  # of orders that fit badly, at the end of their range
        warnings.simplefilter("ignore")
        return float(made.get_epsilon(delta=steps.delta))


@cache
def noise_for(epsilon: float, steps: Steps, accountant: Accountant) -> float | None:
    """The least noise multiplier, about, by which steps have at most an epsilon; None for none."""
    if epsilon_of(NOISIEST, steps, accountant) > epsilon:
        return None
    utils = _opacus("utils")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(utils.get_noise_multiplier(
            target_epsilon=epsilon, target_delta=steps.delta, sample_rate=steps.rate,
            steps=steps.count, accountant=accountant, epsilon_tolerance=epsilon / 1000))


def _opacus(part: str = "") -> Any:
    """Opacus' accountants, which take a second to import.

    Raises:
        InputError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import opacus.accountants
            import opacus.accountants.utils
    except ImportError as error:
        raise InputError("DifferentiallyPrivate counts epsilon with Opacus, which is not installed",
                         "pip install 'ftlab[privacy]'") from error
    return opacus.accountants.utils if part else opacus.accountants
