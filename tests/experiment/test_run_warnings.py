"""What is warned of, by hand; and that the advice of one run never contradicts itself."""

import itertools

import pytest

from negmerge.experiment.choices import SelectionConfig
from negmerge.experiment.warnings import (
    curve_warnings,
    diverged_members,
    leave_one_out_warnings,
    pool_warnings,
    row_warnings,
    unlearned_members,
    unseen_warnings,
    warn_of_chance,
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
    assert found[0]["advice"] == "lower its learning rate, or leave it out of the grid"
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
    assert found["advice"].startswith(
        "a base that knows all of them leaves little to learn: if no row of the table forgets, change"
    )


def test_many_members_are_counted():
    health = {"base": {"loss": 0.3}, **{f"m{i}": {"loss": 1.0} for i in range(9)}}
    (found,) = pool_warnings(0.5, 0.1, [[0.5] * 9] * 9, [f"m{i}" for i in range(9)], health)
    assert found["text"].startswith("members m0, m1, m2, m3, m4, m5 and 3 more ended")


def test_a_pool_at_chance_is_known_before_alpha_is_searched():
    (found,) = warn_of_chance(0.14, 0.1, 5)
    assert found["name"] == "unstable-signs" and "14.0 % of the elements agree" in found["text"]
    assert warn_of_chance(0.16, 0.1, 5) == warn_of_chance(1.0, 1.0, 1) == []


def test_what_is_measured_is_named():
    curve = [BASE, {"alpha": 1.0, "forget": 75.0, "retain": 84.0}]
    row = {"curve": curve, "alpha": 1.0, "floor": None, "open_end": False}
    for measure in ("accuracy", "probability"):
        (found,) = curve_warnings("m", row, SelectionConfig(objective="match-reference"), measure=measure)
        assert f"retain {measure} has lost 7 %" in found["text"] and f"forget {measure} 6 %" in found["text"]


def test_a_pool_that_agrees_by_chance():
    assert pool_warnings(0.9, 0.25, [[1.0, 0.97], [0.97, 1.0]], ["a", "b"], WELL) == []  # alike is no fault
    near = pool_warnings(0.3, 0.25, APART, ["a", "b"], WELL)
    assert kinds(near) == ["unstable-signs"] and "30.0 %" in near[0]["text"]
    away = pool_warnings(0.3, 0.25, [[1, -0.1], [-0.1, 1]], ["a", "b"], WELL)
    assert kinds(away) == ["unstable-signs"] * 2 and "members a, b point away" in away[0]["text"]
    assert away[1]["advice"] == "see to the members that are named above"


def test_a_member_unlike_the_others_is_named_once():
    names, well = ["a", "b", "c", "d", "e"], {name: WELL["a"] for name in "abcde"} | {"base": WELL["base"]}
    cosine = [[1.0 if i == j else 0.1 if 4 in (i, j) else 0.8 for j in range(5)] for i in range(5)]
    (found,) = pool_warnings(0.5, 0.06, cosine, names, well, ["e"])
    assert found["name"] == "unstable-signs" and found["advice"] == "leave it out of the grid"
    assert (
        found["text"]
        == "member e has little in common with the others (below 30 % of what they have, or hardly trained)"
    )
    diverged = well | {"e": {"loss": 4.0, "forget": 50.0}}
    (found,) = pool_warnings(0.5, 0.06, cosine, names, diverged, ["e"])
    assert found["text"].startswith("member e diverged")
    near = pool_warnings(0.07, 0.06, cosine, names, well, ["e"])
    assert [one["advice"] for one in near] == ["leave it out of the grid", "see to the members that are named above"]


def test_an_alpha_that_hangs_on_one_member():
    assert leave_one_out_warnings(1.0, {"a": 1.5, "b": 0.5, "c": 1.0}) == []
    (found,) = leave_one_out_warnings(1.0, {"a": 1.0, "b": 0.45, "c": 1.55})
    assert found["name"] == "unstable-signs" and "1 with all, 0.45 without b, 1.55 without c" in found["text"]


def row(*points, alpha, open_end=False, floor=85.5, **further):
    curve = [BASE, *({"alpha": a, "forget": f, "retain": r} for a, f, r in points)]
    return {"curve": curve, "alpha": alpha, "open_end": open_end, "floor": floor, **further}


def warned(found, **rule):
    return curve_warnings("m", found, SelectionConfig(objective="retain-floor", **rule))


def test_curves():
    (together,) = warned(row((0.5, 72.0, 84.0), alpha=0.5))
    assert together["name"] == "retain-damage" and together["advice"].startswith("project the vectors")
    (projected,) = warned(row((0.5, 72.0, 84.0), alpha=0.5, projection={}))
    assert projected["advice"] == "try a higher strength of the projection"
    (unchanged,) = warned(row((0.5, 72.0, 84.0), alpha=0.0))
    assert unchanged["name"] == "weak-forgetting" and "at α = 0.5, the smallest tried, the retain" in unchanged["text"]
    assert warned(row((0.5, 0.0, 88.0), (1.0, 0.0, 80.0), alpha=0.5)) == []
    (idle,) = curve_warnings("m", row((1.0, 80.0, 90.0), alpha=0.0), SelectionConfig(objective="retain-floor"))
    assert idle["advice"] == "train the members longer, or at a higher rate"
    (blamed,) = curve_warnings(
        "m", row((1.0, 80.0, 90.0), alpha=0.0), SelectionConfig(objective="retain-floor"), blamed=True
    )
    assert blamed["advice"] == "see to the warnings above"


def test_an_open_end_and_a_plateau():
    ended = row((2.0, 70.0, 90.0), alpha=2.0, open_end=True)
    (weak,) = warned(ended, max_alpha=2.01)
    assert "beyond 2" in weak["text"] and weak["advice"] == "raise selection.max_alpha"
    assert warned(ended)[0]["advice"] == "train the members longer, or at a higher rate"
    grid = row((1.0, 70.0, 90.0), alpha=1.0, open_end=True)
    assert [warned(grid, search=search)[0]["advice"] for search in ("grid", "paper")] == [
        "raise selection.max_alpha"
    ] * 2
    (flat,) = warned(row((1.0, 50.0, 90.0), (2.0, 50.0, 90.0), alpha=1.0))
    assert flat["name"] == "weak-forgetting" and "still 50.0 % and falls no further up to α = 2" in flat["text"]
    assert warned(row((1.0, 50.0, 90.0), (2.0, 20.0, 80.0), alpha=1.0)) == []  # the floor is what stopped it
    assert warned(row((1.0, 0.0, 90.0), (2.0, 12.0, 90.0), alpha=1.0)) == []  # gone, and more comes back further on


def test_a_projected_row_is_judged_beside_the_plain_one():
    def said(rows, moved=0.0):
        rule = SelectionConfig(objective="retain-floor")
        base = {"retain": 90.0}
        found = row_warnings(rows, rule, base, {"a": moved}, blamed=False, measure="accuracy")
        return [(one["name"], one["method"], one["advice"]) for one in found]

    gone, left = row((1.0, 0.0, 90.0), alpha=1.0), row((1.0, 50.0, 90.0), (2.0, 50.0, 90.0), alpha=1.0)
    plain, stripped = {"method": "uniform", "buffers": "keep"}, {"method": "uniform", "projection": {"strength": 10}}
    ((name, about, advice),) = said({"mean": gone | plain, "mean projected": left | stripped})
    assert (name, about) == ("weak-forgetting", "mean projected") and advice.startswith("take the plain row")
    both = said({"mean": left | plain, "mean projected": left | stripped})
    assert [advice for *_, advice in both] == ["train the members longer, or at a higher rate"] * 2
    alone = said({"ties": gone | {"method": "ties"}, "mean projected": left | stripped})
    assert [advice for *_, advice in alone] == ["train the members longer, or at a higher rate"]

    stopped = row((1.0, 60.0, 90.0), (2.0, 30.0, 80.0), alpha=1.0)  # by the floor: no warning, and not forgotten
    assert [advice for *_, advice in said({"mean": stopped | plain, "mean projected": left | stripped})] == [
        "train the members longer, or at a higher rate"
    ]
    ended = row((2.0, 70.0, 90.0), alpha=2.0, open_end=True)
    assert "take the plain" not in said({"mean": gone | plain, "mean projected": ended | stripped})[0][2]

    damaged = {"mean": gone | plain | {"retain": 80.0}, "mean projected": gone | stripped | {"retain": 89.0}}
    assert said(damaged, moved=0.3) == []  # the advice would be the row that is there
    assert [name for name, *_ in said({"mean": damaged["mean"]}, moved=0.3)] == ["moved-statistics"]


def test_what_is_left_is_named_and_what_counts_as_gone_is_nothing():
    held_out = row((1.0, 0.0, 90.0), (2.0, 0.0, 90.0), alpha=1.0)
    held_out["curve"] = [{**point, "validation_forget": 60.0} for point in held_out["curve"]]
    (found,) = warned(held_out)
    assert found["text"].startswith("accuracy on held-out rows of their kind is still 60.0 %")
    faint = row((1.0, 0.001, 40.0), alpha=0.0)
    faint["curve"][0] = {**BASE, "forget": 0.016}
    (found,) = warned(faint, gone=0.1)
    assert "nothing to forget (forget accuracy 0.016 %)" in found["text"]


def test_a_base_that_knows_nothing_of_the_rows():
    nothing = row((1.0, 0.0, 90.0), alpha=0.0)
    nothing["curve"][0] = {**BASE, "forget": 0.0}
    (found,) = warned(nothing)
    assert "nothing to forget" in found["text"] and found["advice"].startswith("check that the base was trained on")


@pytest.mark.parametrize(("trained_here", "advice"), [(True, "give a reference, and"), (False, "give validation rows")])
def test_a_base_that_treats_forget_and_validation_rows_alike(trained_here, advice):
    def found(holdout, forget=90.0, validation=90.0):
        base = {"holdout": holdout, "forget": forget, "validation": validation}
        return unseen_warnings(base, 100, 300, trained_here=trained_here, reference=False)

    # D = 2 · holdout − |FA − UA|; its 5 % level for 100 and 300 rows is 1.36 · √(1/100 + 1/300) = 15.7 %
    assert found(7.8)[0]["name"] == "nothing-to-match" and found(7.8)[0]["advice"].startswith(advice)
    assert found(7.9) == []
    assert found(10.0, 90.0, 85.0) != []  # accuracies 5 points apart are within 2 · 3.9, and D is 15 %
    assert found(9.0, 90.0, 80.0) == []  # those 10 points apart are not
    assert unseen_warnings({"holdout": 42.5, "forget": 100.0, "validation": 70.0}, 20, 20, trained_here=True,
                           reference=False) == []  # fmt: skip
    assert unseen_warnings({}, 100, 300, trained_here=trained_here, reference=False) == []


def test_a_run_with_a_reference_is_told_to_use_it():
    base = {"holdout": 1.0, "forget": 90.0, "validation": 90.0}
    (found,) = unseen_warnings(base, 100, 300, trained_here=True, reference=True)
    assert found["advice"] == "choose selection.objective: match-reference"


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
