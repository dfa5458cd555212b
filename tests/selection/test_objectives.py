"""match-reference and match-holdout: values that fall and then rise, searched in at most 8 evaluations."""

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from negmerge.errors import InputError
from negmerge.selection import choose_alpha

KEYS = {"match-reference": "gap", "match-holdout": "holdout"}


def valley(key, values, retain=None):
    def evaluate(alpha):
        k = round(alpha / 0.05)
        return {"forget": 50.0, "retain": retain[k] / 10 if retain else 90.0, key: values[k] / 10}

    return evaluate


def down_and_up(steps, bottom):
    """Values that fall by `steps` (in tenths of a percent) to 0 at index `bottom`, then rise by them."""
    left = list(itertools.accumulate(reversed(steps[:bottom])))[::-1]
    return [*left, 0, *itertools.accumulate(steps[bottom:])]


strict = st.tuples(st.lists(st.integers(1, 45), min_size=20, max_size=20), st.integers(0, 20))
weak = st.tuples(st.lists(st.integers(0, 3), min_size=20, max_size=20), st.integers(0, 20))
falls = st.lists(st.integers(0, 900), min_size=20, max_size=20).map(lambda xs: [900, *sorted(xs, reverse=True)])


@settings(max_examples=300, deadline=None)
@given(shape=strict, objective=st.sampled_from(sorted(KEYS)), retain=falls, floor=st.floats(0.5, 1.0))
def test_strict_valleys_take_eight_evaluations_and_give_the_grids_alpha(shape, objective, retain, floor):
    evaluate = valley(KEYS[objective], down_and_up(*shape), retain)
    grid = choose_alpha(evaluate, objective, floor=floor, search="grid", max_alpha=1.0)
    quick = choose_alpha(evaluate, objective, floor=floor, max_alpha=1.0)
    assert (quick.alpha, quick.note) == (grid.alpha, "")
    assert len(quick.curve) <= 8 and len(grid.curve) == 21


@settings(max_examples=500, deadline=None)
@given(shape=weak, offset=st.integers(0, 5))
def test_flat_stretches_give_the_grids_alpha_too(shape, offset):
    evaluate = valley("gap", [value + offset for value in down_and_up(*shape)])
    grid = choose_alpha(evaluate, "match-reference", search="grid")
    assert choose_alpha(evaluate, "match-reference", max_alpha=1.0).alpha == grid.alpha


@settings(max_examples=300, deadline=None)
@given(
    forget=st.lists(st.integers(0, 900), min_size=20, max_size=20, unique=True),
    retain=falls,
    floor=st.floats(0.5, 1.0),
    zeros=st.integers(0, 20),
)
def test_falling_curves_take_eight_evaluations_and_give_the_grids_alpha(forget, retain, floor, zeros):
    falling = [901, *sorted(forget, reverse=True)][: 21 - zeros] + [0] * zeros

    def evaluate(alpha):
        k = round(alpha / 0.05)
        return {"forget": falling[k] / 10.01, "retain": retain[k] / 10}

    grid = choose_alpha(evaluate, floor=floor, search="grid", margin=1.0)
    quick = choose_alpha(evaluate, floor=floor, max_alpha=1.0, margin=1.0)
    assert (quick.alpha, quick.note) == (grid.alpha, "") and len(quick.curve) <= 8


@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.integers(0, 1000), min_size=21, max_size=21))
def test_any_curve_that_is_not_doubted_was_at_least_descended(values):
    found = choose_alpha(valley("gap", values), "match-reference", max_alpha=1.0)
    if found.note:
        assert found.alpha == choose_alpha(valley("gap", values), "match-reference", search="grid").alpha
    else:
        assume(len(found.curve) < 21)
        assert found.scores["gap"] == min(point.scores["gap"] for point in found.curve)


def test_points_that_contradict_the_valley_are_said():
    values = [50, 10, 50, 60, 70, 80, 90, 99, 40, 99, 99, 99, 99, 30, 99, 99, 99, 99, 99, 99, 99]
    found = choose_alpha(valley("gap", values), "match-reference", max_alpha=1.0)
    assert "do not clearly fall and then rise with α, so every 0.05 up to 1 was evaluated" in found.note
    assert found.alpha == 0.05


def test_the_upper_end_doubles_while_the_gap_falls():
    found = choose_alpha(lambda a: {"forget": 50.0, "retain": 90.0, "gap": abs(a - 3.35)}, "match-reference")
    assert found.alpha == 3.35 and not found.open_end and not found.note
    assert max(p.alpha for p in found.curve) == 8.0 and len(found.curve) <= 15
    far = choose_alpha(lambda a: {"forget": 50.0, "retain": 90.0, "gap": 90 - a / 16}, "match-reference")
    assert far.alpha == 1024.0 and far.open_end
    none = choose_alpha(lambda a: {"forget": 50.0, "retain": 90.0, "gap": a}, "match-reference")
    assert none.alpha == 0.0 and not none.open_end


def test_a_flat_start_is_passed():
    def evaluate(alpha):
        return {"forget": 50.0, "retain": 90.0, "gap": 20.0 if alpha <= 2.4 else abs(4.6 - alpha)}

    found = choose_alpha(evaluate, "match-reference")
    assert found.alpha == 4.6 and len(found.curve) <= 15 and not found.note


def test_only_match_holdout_knows_a_floor():
    def evaluate(alpha):
        return {"forget": 50.0, "retain": 100 - 20 * alpha, "gap": abs(80 - 100 * alpha), "holdout": 80 - 10 * alpha}

    free = choose_alpha(evaluate, "match-reference", max_alpha=1.0)
    assert (free.alpha, free.floor) == (0.8, None)
    held = choose_alpha(evaluate, "match-holdout", floor=0.95, max_alpha=1.0)
    assert (held.alpha, held.floor) == (0.25, 95.0)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("match-reference", r"must return 'gap' as a percentage from 0 to 100 \(match-reference needs a reference"),
        ("match-holdout", r"must return 'holdout' .* \(match-holdout needs validation rows"),
        (
            "match-holdot",
            r"unknown objective 'match-holdot' \(did you mean 'match-holdout'\?\); there are retain-floor",
        ),
    ],
)
def test_what_an_objective_lacks_is_said(objective, message):
    with pytest.raises(InputError, match=message):
        choose_alpha(lambda a: {"forget": 50.0, "retain": 90.0}, objective)


def test_a_wide_curve_that_contradicts_the_search_is_tried_coarsely_and_then_finely_beside_the_best():
    """Falls to α = 6.2 and rises, with a tooth of 2 points at every second point of the lattice."""

    def jagged(alpha):
        k = round(alpha / 0.05)
        return {"forget": 50.0, "retain": 90.0, "gap": 1.0 + abs(alpha - 6.2) + (2.0 if k % 2 else 0.0)}

    found = choose_alpha(jagged, "match-reference")
    assert "so every 0.5 up to 16 and every 0.05 beside the best of them was evaluated" in found.note
    assert found.alpha == 6.2 and len(found.curve) <= 60
    tried = {round(point.alpha / 0.05) for point in found.curve}
    assert set(range(124 - 2, 124 + 3)) <= tried


def test_a_very_wide_curve_that_contradicts_the_search_costs_no_more_than_rounds_of_thirty_two():
    """Projected vectors ask for α above 100, where every 0.05 between two coarse points would be hundreds."""

    def jagged(alpha):
        k = round(alpha / 0.05)
        return {"forget": 50.0, "retain": 90.0, "gap": 1.0 + 0.7 * abs(alpha - 123.4) + (k % 3) * min(alpha, 8) / 8}

    found = choose_alpha(jagged, "match-reference")
    assert "every 0.05 beside the best of them was evaluated" in found.note
    assert abs(found.alpha - 123.4) < 3.0 and len(found.curve) <= 130, len(found.curve)
