"""choose_alpha: the golden curve, the lattice rules, and the search against the grid."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negmerge.errors import InputError
from negmerge.selection import choose_alpha, rank_models

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

    for search in ("grid", "bracket", "paper"):
        found = choose_alpha(evaluate, search=search)
        # the margin: 1.25 · 0.30 rounded up to the lattice; the paper's rule has none
        assert (found.lowest, found.alpha) == (0.30, 0.30 if search == "paper" else 0.40)
    assert choose_alpha(evaluate, margin=1.0).alpha == 0.30


@pytest.mark.parametrize("search", ["grid", "bracket"])
def test_what_is_gone_is_not_driven_to_the_floor(search):
    def evaluate(alpha):
        return {"forget": 50.0 * 0.05**alpha, "retain": 90.0 - alpha, "retain_loss": 0.5}

    def chosen(**settings):
        return choose_alpha(evaluate, search=search, max_alpha=8.0, **settings)

    assert chosen().alpha == 4.5  # the floor of 85.5 holds up to there
    first = next(0.05 * k for k in range(160) if evaluate(0.05 * k)["forget"] <= 2.0)
    found = chosen(gone=2.0)
    assert found.lowest == pytest.approx(first) and first < found.alpha <= 1.25 * first + 0.05
    assert not found.open_end and found.scores == evaluate(found.alpha)
    assert chosen(gone=2.0, margin=1.0).alpha == pytest.approx(first)


def test_models_that_have_forgotten_enough_are_ordered_by_what_they_keep():
    deep, shallow, short = (
        {"forget": 1e-6, "retain": 80.0},
        {"forget": 0.9, "retain": 84.0},
        {"forget": 3.0, "retain": 86.0},
    )
    floors = {"retain": 79.0}

    def order(gone):
        models = {"deep": deep, "shallow": shallow, "short": short}
        return sorted(models, key=lambda name: rank_models(models[name], "retain-floor", floors=floors, gone=gone))

    assert order(0.0) == ["deep", "shallow", "short"] and order(1.0) == ["shallow", "deep", "short"]
    gaps = [rank_models({**deep, "gap": gap}, "match-reference", floors={}, gone=50.0) for gap in (3.0, 4.0)]
    assert gaps == sorted(gaps) and gaps[0] != gaps[1]  # what is near Retrain is no matter of being gone


@pytest.mark.parametrize("gone", [-1.0, 100.0, float("nan")])
def test_gone_that_is_no_percentage_is_refused(gone):
    with pytest.raises(InputError, match="gone must be"):
        choose_alpha(golden, gone=gone)


def test_floor_equal_to_the_accuracy_holds():
    chosen = choose_alpha(lambda a: {"forget": 50 - 40 * a, "retain": 100 - 10 * a}, floor=0.95)
    assert chosen.alpha == 0.5


def test_bracket_doubles_while_the_floor_holds():
    chosen = choose_alpha(lambda a: {"forget": max(0.0, 80 - 10 * a), "retain": 90 - a}, floor=0.95)
    assert chosen.alpha == 4.5  # 90 - 4.5 is the floor
    assert max(p.alpha for p in chosen.curve) == 8.0


def test_bracket_stops_at_zero_forget_and_takes_the_smallest():
    chosen = choose_alpha(lambda a: {"forget": max(0.0, 80 - 100 * a), "retain": 90.0})
    assert (chosen.lowest, chosen.alpha) == (0.8, 1.0)
    assert max(p.alpha for p in chosen.curve) == 1.0
    assert not chosen.open_end


def test_open_end_is_said():
    chosen = choose_alpha(lambda a: {"forget": 80.0 - 0.01 * a, "retain": 90.0})
    assert chosen.open_end and chosen.alpha == 1024.0
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


def test_the_worse_of_own_and_held_out_rows_counts():
    def evaluate(alpha):
        own, held_out = max(0.0, 80 - 50 * alpha), max(0.0, 80 - 100 * alpha)
        return {"forget": own, "validation_forget": held_out, "retain": 90.0}

    assert choose_alpha(evaluate).lowest == 1.6
    swapped = lambda a: {**evaluate(a), "forget": evaluate(a)["validation_forget"], "validation_forget": 0.0}  # noqa: E731
    assert choose_alpha(swapped).lowest == 0.8


def gone_at_one(loss=lambda a: 0.1, retain=lambda a: 90.0):
    return lambda a: {"forget": max(0.0, 80 - 80 * a), "retain": retain(a), "retain_loss": loss(a)}


def test_the_margin_is_as_deep_as_floor_and_retain_loss_allow():
    assert choose_alpha(gone_at_one()).alpha == 1.25
    assert choose_alpha(gone_at_one(), margin=2.0).alpha == 2.0
    # 0.05 nat more than the base's 0.1, up to α = 1.1; of 2.0 a tenth, 0.2
    assert choose_alpha(gone_at_one(lambda a: 0.1 if a <= 1 else 0.1 + 0.5 * (a - 1))).alpha == 1.1
    assert choose_alpha(gone_at_one(lambda a: 2.0 if a <= 1 else 2.0 + (a - 1))).alpha == 1.2
    assert choose_alpha(gone_at_one(retain=lambda a: 90.0 if a < 1.17 else 50.0)).alpha == 1.15
    broken = choose_alpha(gone_at_one(lambda a: 0.1 + a))  # beyond the bound where the rows are forgotten already
    assert (broken.lowest, broken.alpha) == (1.0, 1.0)
    assert choose_alpha(gone_at_one(), max_alpha=1.0).alpha == 1.0


def test_the_margin_does_not_go_where_more_is_known_again():
    def evaluate(alpha):
        return {"forget": max(0.0, 80 - 80 * alpha) if alpha < 1.17 else 3.0, "retain": 90.0}

    assert choose_alpha(evaluate).alpha == 1.15


def test_a_margin_that_finds_less_known_moves_the_smallest_best_alpha():
    def evaluate(alpha):
        known = 100.0 if alpha < 1 else 30.0 if 1.2 <= alpha <= 1.6 else 50.0
        return {"forget": known, "retain": 90.0}

    found = choose_alpha(evaluate)
    assert found.scores["forget"] == 30.0 == dict((p.alpha, p.scores["forget"]) for p in found.curve)[found.lowest]


def test_an_end_where_more_is_known_again_is_not_open():
    risen = choose_alpha(lambda a: {"forget": 80 - 70 * a if a <= 1 else 90.0, "retain": 90.0}, max_alpha=2.0)
    assert risen.lowest == 1.0 and not risen.open_end


def test_doubling_ends_where_nothing_falls_any_more():
    chosen = choose_alpha(lambda a: {"forget": max(2.0, 80 - 80 * a), "retain": 90.0})
    assert chosen.lowest == 1.0 and not chosen.open_end and max(p.alpha for p in chosen.curve) <= 4.0
    late = choose_alpha(lambda a: {"forget": 80.0 if a < 20 else 0.0, "retain": 90.0})  # flat at first
    assert late.lowest == 20.0
    stuck = choose_alpha(lambda a: {"forget": 80.0, "retain": 90.0, "retain_loss": 0.1 * 4**a})
    assert stuck.alpha == 0.0 and max(p.alpha for p in stuck.curve) == 1.0  # nothing moves but the retain loss


def test_a_floor_may_be_held_on_two_scores():
    def evaluate(alpha):
        return {"forget": 80 - 10 * alpha, "retain": 100 - alpha, "validation": 90 - 9 * alpha}

    assert choose_alpha(evaluate, max_alpha=1.0).alpha == 1.0
    assert choose_alpha(evaluate, floor_on=("retain", "validation"), max_alpha=1.0).alpha == 0.5


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
        ({"margin": 0.9}, "margin must be a number from 1"),
        ({"margin": 1e308}, "margin must be a number from 1"),
        ({"max_alpha": 0.01}, "must not be below the step"),
        ({"step": 3.0, "search": "grid"}, "must not be below the step"),
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
