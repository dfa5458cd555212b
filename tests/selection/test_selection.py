"""choose_alpha: the golden curve, the lattice rules, and the search against the grid."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negmerge.errors import InputError
from negmerge.selection import choose_alpha

# Authors' notebook, CLIP ViT-B/32, forget Stanford Cars, retain ImageNet (validation, %).
GOLDEN = [
    (0.00, 59.58, 66.70),
    (0.50, 40.54, 65.70),
    (0.85, 28.62, 63.72),
    (0.90, 25.55, 63.54),
    (0.95, 24.20, 63.20),
    (1.00, 22.60, 62.74),
]


def golden(alpha):
    for (a, fa, ra), (b, fb, rb) in itertools.pairwise(GOLDEN):
        if a <= alpha <= b:
            share = (alpha - a) / (b - a)
            return {"forget": fa + share * (fb - fa), "retain": ra + share * (rb - ra)}
    slope = alpha - 1.0
    return {"forget": max(0.0, 22.60 - 20 * slope), "retain": max(0.0, 62.74 - 9 * slope)}


@pytest.mark.parametrize("search", ["grid", "bracket"])
def test_golden_curve_selects_090(search):
    chosen = choose_alpha(golden, floor=0.95, search=search)
    assert chosen.alpha == 0.90
    assert chosen.floor == pytest.approx(63.365)
    assert chosen.scores["forget"] == pytest.approx(25.55)
    assert not chosen.open_end


def test_grid_evaluates_the_papers_21_points():
    chosen = choose_alpha(golden, search="grid")
    assert [p.alpha for p in chosen.curve] == pytest.approx([i * 0.05 for i in range(21)])


def test_smallest_alpha_among_equals():
    flat = {0.0: 50.0}

    def evaluate(alpha):
        return {"forget": flat.get(alpha, 7.0 if alpha >= 0.30 else 20.0), "retain": 90.0 if alpha < 0.75 else 10.0}

    assert choose_alpha(evaluate, search="grid").alpha == 0.30
    assert choose_alpha(evaluate, search="bracket").alpha == 0.30


def test_floor_equal_to_the_accuracy_holds():
    chosen = choose_alpha(lambda a: {"forget": 50 - 40 * a, "retain": 100 - 10 * a}, floor=0.95)
    assert chosen.alpha == 0.5


def test_bracket_doubles_while_the_floor_holds():
    chosen = choose_alpha(lambda a: {"forget": max(0.0, 80 - 10 * a), "retain": 90 - a}, floor=0.95)
    assert chosen.alpha == 4.5  # 90 - 4.5 is the floor
    assert max(p.alpha for p in chosen.curve) == 8.0


def test_bracket_stops_at_zero_forget_and_takes_the_smallest():
    chosen = choose_alpha(lambda a: {"forget": max(0.0, 80 - 100 * a), "retain": 90.0})
    assert chosen.alpha == 0.8
    assert max(p.alpha for p in chosen.curve) == 1.0
    assert not chosen.open_end


def test_open_end_is_said():
    chosen = choose_alpha(lambda a: {"forget": 80.0 - 0.1 * a, "retain": 90.0})
    assert chosen.open_end and chosen.alpha == 64.0
    chosen = choose_alpha(lambda a: {"forget": 80.0 - 10 * a, "retain": 90.0}, max_alpha=1.0, search="grid")
    assert chosen.open_end and chosen.alpha == 1.0


def test_nothing_helps_gives_the_base():
    assert choose_alpha(lambda a: {"forget": 80 - a, "retain": 90.0 if a == 0 else 0.0}).alpha == 0.0


def test_contradicted_monotony_falls_back_to_the_grid_and_says_so():
    def evaluate(alpha):  # the floor breaks between 0.3 and 0.45 and holds again
        broken = 0.3 < alpha < 0.48 or alpha > 0.8
        return {"forget": 60 - 30 * alpha + (40 if alpha == 0.5 else 0), "retain": 50.0 if broken else 90.0}

    chosen = choose_alpha(evaluate)
    assert "instead of bisecting" in chosen.note
    assert chosen.alpha == choose_alpha(evaluate, search="grid").alpha == 0.8


def test_alpha_is_evaluated_once():
    seen = []
    choose_alpha(lambda a: seen.append(a) or {"forget": 80 - 80 * min(a, 1), "retain": 90 - 10 * min(a, 1)})
    assert len(seen) == len(set(seen)) and 0.0 in seen


falls = st.lists(st.integers(0, 900), min_size=20, max_size=20).map(lambda xs: sorted(xs, reverse=True))


@settings(max_examples=300, deadline=None)
@given(forget=falls, retain=falls, floor=st.floats(0.5, 1.0))
def test_bracket_equals_the_grid_on_falling_curves(forget, retain, floor):
    def evaluate(alpha):
        k = round(alpha / 0.05)
        return {"forget": ([900, *forget])[k] / 10, "retain": ([900, *retain])[k] / 10}

    grid = choose_alpha(evaluate, floor=floor, search="grid", max_alpha=1.0)
    bracket = choose_alpha(evaluate, floor=floor, search="bracket", max_alpha=1.0)
    assert (bracket.alpha, bracket.note) == (grid.alpha, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "best"}, "unknown objective 'best'"),
        ({"floor": 1.5}, "floor must be a share from 0 to 1, got 1.5"),
        ({"floor": float("nan")}, "floor must be a share"),
        ({"step": 0.0}, "step and max_alpha must be positive"),
        ({"max_alpha": -1.0}, "step and max_alpha must be positive"),
        ({"search": "random"}, "unknown search 'random'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        choose_alpha(golden, **arguments)


def test_bad_scores():
    with pytest.raises(InputError, match=r"must return 'retain' as a percentage from 0 to 100, got nothing"):
        choose_alpha(lambda a: {"forget": 1.0})
    with pytest.raises(InputError, match=r"must return 'forget' as a percentage from 0 to 100, got nan"):
        choose_alpha(lambda a: {"forget": float("nan"), "retain": 1.0})
