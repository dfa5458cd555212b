"""The scale by hand: positions, intervals, and when nothing can be told."""

import math

import pytest
import torch
from scipy import stats

from negmerge.errors import DivergedError, InputError
from negmerge.evidence.scale import read_scale, student
from negmerge.intervals import wilson


def read(base, reference, model, **settings):
    scores = {"base": base, "reference": reference, "model": model}
    return read_scale("x", scores, **{"span": 1.0, **settings})


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_position_and_its_interval_by_hand():
    found = read(
        base=column(1.0, 1.0, 1.0, 1.0, 1.0),
        reference=column(0.0, 0.0, 0.0, 0.0, 0.0),
        model=column(0.2, 0.3, 0.25, 0.2, 0.3),
        unit="draws",
    )
    assert found.position == pytest.approx(0.25)
    # e is −.05 .05 0 −.05 .05: its variance is 4 · .0025 / 4
    half = student(4) * 0.05 / math.sqrt(5)
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half))
    assert found.informative and not found.passes and not found.beyond
    assert (found.base, found.reference, found.n) == (1.0, 0.0, 5)


def test_a_position_of_paired_rows_is_surer_than_its_parts():
    shift = torch.linspace(0, 5, 40, dtype=torch.float64)  # rows differ, alike in all three models
    found = read(base=shift + 1, reference=shift, model=shift + 0.5)
    assert found.position == pytest.approx(0.5) and found.high - found.low < 0.06


def test_half_a_row_of_doubt_is_left_where_all_rows_agree():
    found = read(base=torch.ones(10), reference=torch.zeros(10), model=torch.zeros(10))
    assert found.position == 0.0 and found.high == pytest.approx(student(9) * 0.05)
    assert found.informative and found.passes


@pytest.mark.parametrize(
    ("base", "reference", "model", "why"),
    [
        ([1.0] * 20, [1.0] * 20, [0.5] * 20, "does not surely lie above"),
        ([0.0] * 20, [1.0] * 20, [0.5] * 20, "does not surely lie above"),
        ([0.55] * 200, [0.5] * 200, [0.5] * 200, "less than a tenth"),
        ([1.0] * 20, [0.0] * 20, [0.0, 1.0] * 10, ""),
        ([1.0] * 10, [0.0] * 10, [0.0, 1.0] * 5, "wider than half"),
    ],
)
def test_when_nothing_can_be_told(base, reference, model, why):
    found = read(base=column(*base), reference=column(*reference), model=column(*model))
    assert why in found.why and found.informative == (not why)


def test_beyond_retrain_is_seen_even_where_the_base_is_near_it():
    near_base = {"base": torch.full((50,), 0.95), "reference": torch.full((50,), 0.9)}
    found = read(**near_base, model=torch.zeros(50), both_sides=True)
    assert not read(**near_base, model=torch.zeros(50)).beyond
    assert found.beyond and not found.informative
    near = read(
        base=torch.ones(50),
        reference=torch.full((50,), 0.9),
        model=torch.full((50,), 0.85),
        both_sides=True,
    )
    assert not near.beyond


def test_one_row_alone_tells_nothing():
    found = read(base=torch.ones(1), reference=torch.zeros(1), model=torch.zeros(1))
    assert not found.informative and found.n == 1 and (found.base, found.model) == (1.0, 0.0)


def test_what_is_refused():
    with pytest.raises(InputError, match="as many rows"):
        read(base=torch.ones(3), reference=torch.ones(2), model=torch.ones(3))
    with pytest.raises(DivergedError, match="NaN"):
        read(base=torch.ones(3), reference=torch.ones(3), model=torch.full((3,), torch.nan))


@pytest.mark.parametrize(
    ("freedom", "within"), [(1, 1e-6), (2, 1e-6), (3, 1e-6), (4, 1e-6), (5, 4e-3), (9, 1e-3), (500, 1e-6)]
)
def test_quantiles_as_scipy_has_them(freedom, within):
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=within)


def test_wilson_as_scipy_has_it():
    for right, n in ((0, 129), (5, 60), (60, 60)):
        theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high))
