"""What is warned of, by hand; and that the advice of one run never contradicts itself."""

import itertools

import pytest

from negmerge.experiment.warnings import (
    curve_warnings,
    diverged_members,
    leave_one_out_warnings,
    pool_warnings,
    unlearned_members,
    unseen_warnings,
)

WELL = {"base": {"loss": 0.3, "forget": 90.0}, "a": {"loss": 0.01, "forget": 99.0}, "b": {"loss": 0.02, "forget": 99.0}}
APART = [[1.0, 0.1], [0.1, 1.0]]
BASE = {"alpha": 0.0, "forget": 80.0, "retain": 90.0}
RAISE, LOWER = {"longer", "higher", "raise"}, {"lower", "smaller"}


def kinds(found):
    return [one["name"] for one in found]


def test_a_sound_pool_is_not_warned_of():
    assert pool_warnings(0.5, 0.25, APART, ["a", "b"], WELL) == []
    assert pool_warnings(1.0, 1.0, [[1.0]], ["a"], WELL) == []


def test_members_that_diverged_or_learned_nothing_are_named_once():
    names = ["a", "b", "c", "d"]
    cosine = [[1.0 if i == j else 0.3 for j in range(4)] for i in range(4)]
    ill = {**WELL, "c": {"loss": 4.0, "forget": 84.0}, "d": {"loss": 0.3, "forget": 90.0}}
    assert diverged_members(ill) == ["c"] and unlearned_members(ill) == ["c", "d"]
    found = pool_warnings(0.5, 0.125, cosine, names, ill)
    assert kinds(found) == ["unstable-signs", "weak-forgetting"]
    assert found[0]["text"].startswith("member c diverged") and "84.0 %, the base's is 90.0 %" in found[0]["text"]
    assert found[1]["text"].startswith("member d ended with a loss") and "0.3, the base 0.3" in found[1]["text"]


def test_a_higher_loss_than_the_base_is_named_however_well_the_base_knows_the_rows():
    known = {
        "base": {"loss": 0.01, "forget": 100.0},
        "a": {"loss": 0.09, "forget": 100.0},
        "b": WELL["a"] | {"loss": 0},
    }
    (found,) = pool_warnings(0.5, 0.25, APART, ["a", "b"], known)
    assert found["name"] == "weak-forgetting" and found["text"].startswith("member a ended with a loss")


def test_many_members_are_counted():
    health = {"base": {"loss": 0.3}, **{f"m{i}": {"loss": 1.0} for i in range(9)}}
    (found,) = pool_warnings(0.5, 0.1, [[0.5] * 9] * 9, [f"m{i}" for i in range(9)], health)
    assert found["text"].startswith("members m0, m1, m2, m3, m4, m5 and 3 more ended")


def test_a_pool_that_is_too_alike_or_agrees_by_chance():
    alike = pool_warnings(0.9, 0.25, [[1.0, 0.97], [0.97, 1.0]], ["a", "b"], WELL)
    assert kinds(alike) == ["weak-forgetting"] and "mean cosine of 0.97" in alike[0]["text"]
    near = pool_warnings(0.3, 0.25, APART, ["a", "b"], WELL)
    assert kinds(near) == ["unstable-signs"] and "30.0 %" in near[0]["text"]
    away = pool_warnings(0.3, 0.25, [[1, -0.1], [-0.1, 1]], ["a", "b"], WELL)
    assert kinds(away) == ["unstable-signs"] * 2 and "members a, b point away" in away[0]["text"]
    assert away[1]["advice"] == "see to the members that are named above"


def test_an_alpha_that_hangs_on_one_member():
    assert leave_one_out_warnings(1.0, {"a": 1.5, "b": 0.5, "c": 1.0}) == []
    (found,) = leave_one_out_warnings(1.0, {"a": 1.0, "b": 0.45, "c": 1.55})
    assert found["name"] == "unstable-signs" and "1 with all, 0.45 without b, 1.55 without c" in found["text"]


def test_curves():
    together = [BASE, {"alpha": 0.5, "forget": 72.0, "retain": 84.0}]
    assert kinds(curve_warnings("m", together, 0.5, False)) == ["retain-damage"]
    (unchanged,) = curve_warnings("m", together, 0.0, False, floor=85.5)
    assert unchanged["name"] == "weak-forgetting" and "at α = 0.5, the smallest tried, the retain" in unchanged["text"]
    clean = [BASE, {"alpha": 0.5, "forget": 10.0, "retain": 88.0}, {"alpha": 1.0, "forget": 2.0, "retain": 80.0}]
    assert curve_warnings("m", clean, 0.5, False) == []
    ended = [BASE, {"alpha": 2.0, "forget": 70.0, "retain": 90.0}]
    (weak,) = curve_warnings("m", ended, 2.0, True, limit=2.0)
    assert "beyond 2" in weak["text"] and weak["advice"] == "raise selection.max_alpha"
    (weak,) = curve_warnings("m", ended, 2.0, True)
    assert weak["advice"] == "train the members longer, or at a higher rate"


@pytest.mark.parametrize(("trained_here", "advice"), [(True, "give a reference"), (False, "give validation rows")])
def test_a_base_that_treats_forget_and_validation_rows_alike(trained_here, advice):
    # 5 % level of the Kolmogorov-Smirnov distance of 100 and 300 rows: 1.36 · √(1/100 + 1/300) = 15.7 %
    (found,) = unseen_warnings(15.6, 100, 300, trained_here=trained_here)
    assert found["name"] == "nothing-to-match" and found["advice"].startswith(advice)
    assert unseen_warnings(15.8, 100, 300, trained_here=trained_here) == []
    assert unseen_warnings(None, 100, 300, trained_here=trained_here) == []


def test_no_two_warnings_of_a_pool_contradict_each_other():
    """Whatever is wrong together: no advice to the whole pool to go up stands beside one to go down."""
    members = {
        "well": {"loss": 0.01, "forget": 99.0},
        "diverged": {"loss": 4.0, "forget": 10.0},
        "idle": {"loss": 0.3, "forget": 90.0},
    }
    for names in itertools.combinations_with_replacement(members, 3):
        health = {"base": WELL["base"], **{f"{name}{i}": members[name] for i, name in enumerate(names)}}
        for consensus, cosine in ((0.1, 0.0), (0.3, 0.2), (0.9, 0.99)):
            rows = [[1.0 if i == j else cosine for j in range(3)] for i in range(3)]
            found = pool_warnings(consensus, 0.25, rows, list(health)[1:], health)
            general = " ".join(one["advice"] for one in found if "named above" not in one["advice"]).split()
            whole = [one for one in found if not one["text"].startswith("member")]
            words = {word.strip(",") for one in whole for word in one["advice"].split()}
            assert not (words & RAISE and words & LOWER), general
            assert len(whole) <= 1 and len({one["text"] for one in found}) == len(found)
