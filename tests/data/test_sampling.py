from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.data.sampling import (
    Balanced,
    EffectiveNumber,
    ExactEvalSampler,
    Natural,
    SquareRoot,
    TrainSampler,
    longest_first,
    share_of_batch,
)
from ftlab.errors import InputError

COUNTS = [4000, 800, 200]
STRATA = [name for name, n in zip("abc", COUNTS, strict=True) for _ in range(n)]
BETA = 0.999
SHARES = {  # closed formulas, not normalised
    Natural(): [n for n in COUNTS],
    Balanced(): [1, 1, 1],
    SquareRoot(): [n**0.5 for n in COUNTS],
    # draws of a class: examples times the weight 1 / E(n) of each, Cui et al. 2019
    EffectiveNumber(BETA): [n / ((1 - BETA**n) / (1 - BETA)) for n in COUNTS],
}


def draw(sampler: TrainSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("sampling", SHARES, ids=lambda s: type(s).__name__)
def test_order__classes_as_often_as_the_formula_says(sampling):
    expected = np.array(SHARES[sampling]) / sum(SHARES[sampling])
    np.testing.assert_allclose(sampling.class_probabilities(COUNTS), expected)
    drawn = np.concatenate([sampling.order(STRATA, 0, epoch) for epoch in range(5)])
    classes = np.array(STRATA)[drawn]
    shares = [np.mean(classes == name) for name in "abc"]
    np.testing.assert_allclose(shares, expected, atol=4 * (0.25 / len(drawn)) ** 0.5)


@pytest.mark.parametrize("sampling", SHARES, ids=lambda s: type(s).__name__)
def test_order__examples_of_a_class_equally_often(sampling):
    strata = ["a"] * 10 + ["b"] * 2
    drawn = np.concatenate([sampling.order(strata, 3, epoch) for epoch in range(400)])
    a = np.bincount(drawn, minlength=12)[:10]
    assert a.min() > 0.75 * a.mean() and a.max() < 1.25 * a.mean()


def test_effective_number__between_natural_and_balanced():
    np.testing.assert_allclose(EffectiveNumber(0.0).class_probabilities(COUNTS),
                               Natural().class_probabilities(COUNTS))
    np.testing.assert_allclose(EffectiveNumber(1 - 1e-9).class_probabilities(COUNTS),
                               Balanced().class_probabilities(COUNTS), rtol=1e-3)


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_effective_number__refuses_beta_out_of_range(beta):
    with pytest.raises(ValueError, match=str(beta)):
        EffectiveNumber(beta)


@pytest.mark.parametrize("sampling", SHARES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 7, 12])
def test_train_sampler__ranks_share_the_one_rank_order(sampling, world, n):
    strata = [str(i % 2) for i in range(n)]
    whole = draw(TrainSampler(sampling, strata, 5), epoch=2)
    ranks = [TrainSampler(sampling, strata, 5, rank, world) for rank in range(world)]
    shares = [draw(sampler, epoch=2) for sampler in ranks]
    assert {len(share) for share in shares} == {len(ranks[0])}
    together = [share[i] for i in range(len(ranks[0])) for share in shares]
    assert together[:n] == whole
    assert together[n:] == (whole * world)[:len(together) - n]  # wrapped from the beginning


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_natural__each_once_and_new_each_epoch(n, seed, epoch):
    sampler = TrainSampler(Natural(), ["a"] * n, seed)
    first = draw(sampler, epoch)
    assert sorted(first) == list(range(n))
    assert draw(sampler, epoch) == first
    if n > 20:
        assert draw(sampler, epoch + 1) != first
        assert draw(TrainSampler(Natural(), ["a"] * n, seed + 1), epoch) != first


def test_train_sampler__tells_the_epoch():
    told: list[int] = []
    TrainSampler(Natural(), ["a"], 0, on_epoch=told.append).set_epoch(4)
    assert told == [4]


@given(st.integers(0, 30), st.integers(1, 3))
def test_eval_sampler__each_once_over_all_ranks_in_order(n, world):
    order = list(range(n))[::-1]
    shares = [ExactEvalSampler(order, rank, world) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(n))
    assert all(list(share) == order[rank::world] and len(share) == len(list(share))
               for rank, share in enumerate(shares))


def test_balanced__needs_classes():
    with pytest.raises(InputError, match="Balanced needs a task with classes"):
        Balanced().order([None, None], 0, 0)
    assert sorted(Natural().order([None, None], 0, 0)) == [0, 1]


@pytest.mark.parametrize("sampling", SHARES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("devices", [2, 3, 4])
@pytest.mark.parametrize("n", [11, 12, 40])
def test_updates__have_the_examples_of_one_device(sampling, devices, n):
    """`batch_size` counts over all devices, so that results do not depend on their number."""
    strata = [str(i % 2) for i in range(n)]

    def updates(world: int) -> list[list[int]]:
        share = share_of_batch(12, world)
        orders = [draw(TrainSampler(sampling, strata, 5, rank, world), 2) for rank in range(world)]
        return [[i for order in orders for i in order[start:start + share]]
                for start in range(0, len(orders[0]), share)]

    alone, together = updates(1), updates(devices)
    assert len(together) == len(alone)
    assert all(sorted(a) == sorted(b) for a, b in zip(alone[:-1], together, strict=False))
    more = -n % devices  # ranks take equally many, so the last update may repeat the first ones
    whole = [i for update in alone for i in update]
    assert sorted(together[-1]) == sorted(alone[-1] + whole[:more])


@pytest.mark.parametrize(("size", "devices", "mend"), [(10, 4, "8"), (3, 4, "4"), (7, 2, "6")])
def test_share__is_equal_or_refused(size, devices, mend):
    with pytest.raises(InputError, match=f"batch_size {size} .* {devices} cannot share") as error:
        share_of_batch(size, devices)
    assert error.value.mend.startswith(f"set batch_size: {mend},")
    assert share_of_batch(int(mend), devices) * devices == int(mend)


@given(st.lists(st.integers(0, 5)))
def test_longest_first__equal_ones_stay_in_order(lengths):
    order = longest_first(lengths)
    assert sorted(order) == list(range(len(lengths)))
    assert all((lengths[a], -a) > (lengths[b], -b) for a, b in pairwise(order))
