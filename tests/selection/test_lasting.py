"""α that lasts: found where the answer is known, with few candidates, and refused where it cannot be asked for."""

import pytest

from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.selection import Position, choose_alpha, rank_models
from negmerge.selection.lasting import step_of


def scores(forget=100.0, cost=0.0):
    """Forget accuracy falls to 0 at α = 0.8; retain loss grows with α as `cost` says."""
    return lambda a: {"forget": max(0.0, 80 - forget * a), "retain": 90 - 0.1 * a, "retain_loss": cost * a}


class Asked:
    """Positions that a function of α gives, with an interval around them; counts what it was asked."""

    def __init__(self, half=0.02, **tests):
        self.tests, self.half, self.alphas = tests, half, []

    def __call__(self, alpha):
        self.alphas.append(alpha)
        return {
            name: Position(of(alpha), of(alpha) - self.half, of(alpha) + self.half) for name, of in self.tests.items()
        }


def chosen(asked, measured=None, **options):
    return choose_alpha(measured or scores(), "lasting", comes_back=asked, **options)


def test_the_crossing_with_retrain_is_found():
    asked = Asked(relearning=lambda a: 1.0 - 0.4 * a)  # 0 at α = 2.5
    found = chosen(asked)
    assert found.lowest == 0.8 and abs(found.alpha - 2.5) < 0.2 and found.scores["lasting"] <= 10.0
    assert len(asked.alphas) == len(set(asked.alphas)) <= 8
    assert [one.alpha for one in found.tried] == sorted(asked.alphas) and found.note == ""


def test_the_test_on_which_most_comes_back_decides():
    asked = Asked(relearning=lambda a: 1.0 - 0.4 * a, offset=lambda a: 1.0 - 0.2 * a)  # 0 at 2.5 and at 5
    found = chosen(asked)
    # beyond 2.75 relearning lies surely beyond Retrain: what is left of offset there is the smaller evil
    best = min(found.tried, key=lambda one: (step_of(one.distance), one.alpha))
    assert found.alpha == best.alpha and 2.4 <= found.alpha <= 4.3


def test_an_alpha_surely_beyond_retrain_is_as_bad_as_one_before_it():
    asked = Asked(relearning=lambda a: 0.3 if a < 3.0 else -0.9)
    found = chosen(asked)
    assert found.alpha == 0.8 and found.scores["lasting"] == 30.0
    assert "hides" in found.note


def test_only_what_is_free_is_tested():
    asked = Asked(relearning=lambda a: 1.0 - 0.1 * a)
    found = chosen(asked, scores(cost=0.025))  # the bound of 0.05 nat is reached at α = 2
    assert max(asked.alphas) <= 2.0 and found.alpha == max(asked.alphas)
    assert len(asked.alphas) == 4 and "hides here, it does not remove" in found.note


def test_where_forgetting_is_enough_one_candidate_is_tested():
    asked = Asked(relearning=lambda a: -0.05)
    assert chosen(asked).alpha == 0.8 and asked.alphas == [0.8]


def test_where_no_test_can_tell_the_smallest_alpha_is_taken():
    asked = Asked()
    found = chosen(asked)
    assert found.alpha == found.lowest == 0.8 and "lasting" not in found.scores and "No test could tell" in found.note


def test_fewer_candidates_are_heeded():
    asked = Asked(relearning=lambda a: 1.0 - 0.4 * a)
    assert len(chosen(asked, candidates=3).tried) == 3


def test_models_are_ordered_by_what_lasts_then_by_what_is_kept():
    floors = {"retain": 80.0}
    order = [{"lasting": 10.0, "retain": 85.0}, {"lasting": 10.0, "retain": 90.0}, {"lasting": 5.0, "retain": 70.0}]
    assert sorted(order, key=lambda one: rank_models(one, "lasting", floors=floors)) == [order[1], order[0], order[2]]


def test_it_is_refused_where_it_cannot_be_asked():
    with pytest.raises(InputError, match="lasting needs comes_back"):
        choose_alpha(scores(), "lasting")
    with pytest.raises(InputError, match="no other takes it"):
        choose_alpha(scores(), "retain-floor", comes_back=Asked())
    with pytest.raises(InputError, match="candidates must be at least 2"):
        chosen(Asked(), candidates=1)
    config = {
        "name": "x", "model": {"family": "small-cnn"}, "data": {"source": "digits", "forget": {"classes": ["3"]}},
        "base": {"train": {"epochs": 1}}, "pool": {"grid": {"lr": [0.1]}}, "methods": ["consensus"],
        "selection": {"objective": "lasting"},
    }  # fmt: skip
    with pytest.raises(InputError, match="lasting compares what comes back with Retrain, so it needs a reference"):
        check_config(config)
