"""The search for settings: what is tried, what wins, what it costs, and that it goes on."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict

from negmerge import registry
from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.experiment.judging import Judge
from negmerge.experiment.methods import check_settings, describe, needs_of, run_method
from negmerge.selection import Point, Selection, rank_models
from negmerge.unlearning.context import SHARED, Outcome
from negmerge.unlearning.method import Method, method_of
from negmerge.unlearning.methods import greedy
from negmerge.unlearning.search import candidates, search_ranges, unlearn_searched


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    lr: float = 0.5
    size: int = 1


def fake_method(unlearn, **more):
    return Method("train", ("forget",), "", "", Settings, unlearn, **more)


@dataclass(frozen=True)
class FakeContext:
    directory: Any
    judge: Any
    rank: Any
    tell: Any


def fake_context(tmp_path, scores):
    """A context that judges a checkpoint by its file name."""
    told = []
    return SimpleNamespace(told=told), FakeContext(
        tmp_path, lambda path: scores[path.name], lambda s: (s["forget"],), lambda event, **f: told.append((event, f))
    )


def test_lists_are_ranges_and_the_method_has_its_own():
    module = fake_method(None, SEARCH={"lr": (0.1, 0.2)})
    assert search_ranges(module, {}) == {"lr": [0.1, 0.2]}
    assert search_ranges(module, {"lr": 0.3}) == {}
    assert search_ranges(module, {"size": [2, 3]}) == {"lr": [0.1, 0.2], "size": [2, 3]}
    assert list(candidates(module, {"size": [2, 3]})) == [
        {"size": 2, "lr": 0.1},
        {"size": 3, "lr": 0.1},
        {"size": 2, "lr": 0.2},
        {"size": 3, "lr": 0.2},
    ]
    assert search_ranges(registry.load("methods", "best-single"), {}) == {}
    assert describe("fine-tune").search == {"lr": [1e-4, 1e-3, 1e-2, 1e-1]}


def test_the_winner_is_the_smallest_rank_and_the_first_among_equals(tmp_path):
    trained = []

    def unlearn(context, settings):
        trained.append(settings.lr)
        return Outcome(checkpoint=context.directory / f"lr{settings.lr:g}", seconds={"training": 10 * settings.lr})

    scores = {"lr1": {"forget": 7.0}, "lr2": {"forget": 3.0}, "lr3": {"forget": 3.0}}
    watch, context = fake_context(tmp_path, scores)
    module = fake_method(unlearn)
    outcome = unlearn_searched(module, {"lr": [1, 2, 3]}, context)
    record = outcome.search
    assert outcome.checkpoint.name == "lr2" and record["winner"] == {"lr": 2} and record["ranges"] == {"lr": [1, 2, 3]}
    assert [trial["scores"] for trial in record["candidates"]] == list(scores.values())
    assert outcome.seconds["training"] == 20 and outcome.seconds["search"] == pytest.approx(40, abs=0.1)
    assert trained == [1, 2, 3, 2]  # the winner is asked for once more, and reads itself back
    assert [event for event, _ in watch.told] == ["candidate"] * 3
    # Again, as after an interruption: no candidate is trained anew.
    assert unlearn_searched(module, {"lr": [1, 2, 3]}, context).search == record and trained == [1, 2, 3, 2, 2]
    # On another seed the record is taken over and only its winner is trained; the cost of the search stays in its row.
    _, other = fake_context(tmp_path / "other", {})
    again = unlearn_searched(module, {"lr": [1, 2, 3]}, other, json.loads(json.dumps(record)))
    assert trained[5:] == [2] and again.search == record and again.seconds["search"] == outcome.seconds["search"]


def test_a_candidate_that_diverges_is_out(tmp_path):
    def unlearn(context, settings):
        if settings.lr > 1:
            raise NegmergeError("training diverged")
        return Outcome(checkpoint=context.directory / "ok", seconds={"training": 1.0})

    _, context = fake_context(tmp_path / "a", {"ok": {"forget": 50.0}})
    record = unlearn_searched(fake_method(unlearn), {"lr": [9, 1]}, context).search
    assert record["winner"] == {"lr": 1} and record["candidates"][0]["failed"] == "training diverged"
    _, context = fake_context(tmp_path / "b", {})
    with pytest.raises(NegmergeError, match="every candidate failed; the first: training diverged"):
        unlearn_searched(fake_method(unlearn), {"lr": [8, 9]}, context)

    def wrong(context, settings):
        raise InputError("no such layer")

    with pytest.raises(InputError, match="no such layer"):  # not a matter of settings: the run must stop
        unlearn_searched(fake_method(wrong), {"lr": [8, 9]}, fake_context(tmp_path / "c", {})[1])


def test_a_killed_search_takes_over_what_was_tried(tmp_path, make_context, monkeypatch):
    module = method_of("fine-tune")
    given = {"lr": [1e-3, 1e-2, 1e-1], "epochs": 2}
    whole = unlearn_searched(module, given, make_context("fine-tune"))
    context = make_context("fine-tune", "broken")
    seen = []

    def judge(checkpoint):
        if len(seen) == 1:
            seen.append(checkpoint)
            raise KeyboardInterrupt
        seen.append(checkpoint)
        return context.judge(checkpoint)

    broken = replace(context, judge=judge)
    with pytest.raises(KeyboardInterrupt):
        unlearn_searched(module, given, broken)
    outcome = unlearn_searched(module, given, broken)
    assert [path.parent.name[-3:] for path in seen] == ["000", "001", "001", "002"]
    assert outcome.search["winner"] == whole.search["winner"]
    ours, theirs = read_state_dict(outcome.checkpoint), read_state_dict(whole.checkpoint)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_all_methods_are_ranked_by_the_floor(seed_run):
    judge = Judge(seed_run.selector, seed_run.base)
    base = judge.base_scores
    floor = 0.95 * base["retain"]
    holding = [{"forget": 5.0, "retain": floor}, {"forget": 5.0001, "retain": 100.0}, {"forget": 90.0, "retain": floor}]
    equal = {"forget": 5.0, "retain": floor + 1}
    broken = [{"forget": 80.0, "retain": floor - 0.1}, {"forget": 0.0, "retain": floor - 0.2}]
    ranks = [judge.rank(scores) for scores in [equal, *holding, *broken]]
    assert ranks == sorted(ranks) and len(set(ranks)) == 6
    assert base["forget"] > 80 and base == judge.scores(seed_run.base)


def test_models_are_ranked_by_the_objective_of_the_run():
    # forget falls from left to right, but the gap and the distance to unseen rows are smallest in the middle
    models = [
        {"forget": 90.0, "retain": 99.0, "gap": 9.0, "holdout": 8.0},
        {"forget": 70.0, "retain": 97.0, "gap": 3.0, "holdout": 2.0},
        {"forget": 40.0, "retain": 96.0, "gap": 7.0, "holdout": 5.0},
        {"forget": 60.0, "retain": 80.0, "gap": 1.0, "holdout": 1.0},  # below the floor
    ]

    floors = {"retain-floor": {"retain": 95.0}, "match-reference": {}, "match-holdout": {"retain": 95.0}}

    def order(objective):
        return sorted(range(4), key=lambda i: rank_models(models[i], objective, floors=floors[objective]))

    assert order("retain-floor") == [2, 1, 0, 3]
    assert order("match-reference") == [3, 1, 2, 0]
    assert order("match-holdout") == [1, 2, 0, 3]
    models[2]["validation_forget"] = 80.0  # held-out rows of the kind are known better: the worse counts
    assert order("retain-floor") == [1, 2, 0, 3]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fine-tune", {"lrr": 1}, r"does not take 'lrr' \(did you mean 'lr'\?\)"),
        ("fine-tune", {"lr": [0.1, -1]}, "method fine-tune: lr: Input should be greater than 0"),
        ("fine-tune", {"lr": []}, "method fine-tune: lr: give a list of different values to search, got "),
        ("fine-tune", {"lr": [0.1, 0.1]}, "give a list of different values"),
        ("salun", {"share": 0}, "method salun: share: Input should be greater than 0"),
        ("sisa", {"train": {"lr": -1}}, "method sisa: train.lr: Input should be greater than 0"),
        ("best-single", {"lr": [1]}, "does not take 'lr'"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        check_settings(name, settings)
    assert "\n" not in str(caught.value)


def test_what_a_method_needs_depends_on_its_settings():
    assert needs_of("salun", {}) == ("forget", "retain") and needs_of("salun", {"retain": False}) == ("forget",)
    assert needs_of("random-labels", {"retain": False, "lr": [0.1, 0.2]}) == ("forget",)
    assert needs_of("gradient-ascent", {}) == ("forget",) and needs_of("consensus", {}) == ("pool", "forget")


def test_divergence_names_the_method(make_context):
    with pytest.raises(NegmergeError, match=r"method gradient-ascent: .*diverged"):
        run_method("gradient-ascent", {"lr": 1e30}, make_context("gradient-ascent"))
    with pytest.raises(NegmergeError, match=r"method gradient-ascent: every candidate failed"):
        run_method("gradient-ascent", {"lr": [1e30, 1e31]}, make_context("gradient-ascent"))


def test_greedy_takes_what_improves(make_context, monkeypatch):
    """Scores of the members and of their means are given; the order, the ties and the choice follow."""
    context = make_context("greedy")
    names = [member.parent.name for member in context.members]
    a, b, c, d = names
    alone = {a: 30.0, b: 10.0, c: 20.0, d: 10.0}
    # By rank: b, d (the same, later in the pool), c, a. d does not improve (equal), c does, a makes it worse.
    together = {(b, d): 10.0, (b, c): 8.0, (a, b, c): 8.5}
    asked = []

    def negate(context, method, settings, members, name):
        chosen = tuple(member.parent.name for member in members)
        asked.append((method, chosen))
        scores = {"forget": alone[chosen[0]] if len(chosen) == 1 else together[chosen], "retain": 99.0}
        selection = Selection(1.0, scores, 90.0, (Point(1.0, scores),))
        return Outcome(vector=context.directory / name, selection=selection, seconds={"merge": 1.0, "selection": 2.0})

    monkeypatch.setattr(greedy, "negate", negate)
    monkeypatch.setattr("negmerge.unlearning.singles.negate", negate)
    outcome = greedy.unlearn(context, greedy.Settings())
    assert outcome.facts == {"taken": [b, c], "taken_members": 2}
    assert outcome.selection.scores["forget"] == 8.0
    assert asked[4:] == [("uniform", (b, d)), ("uniform", (b, c)), ("uniform", (a, b, c))]
    assert outcome.seconds == {"pool": 1.0, "merge": 7.0, "selection": 14.0}


def test_single_members_are_evaluated_once_for_best_single_and_greedy(make_context):
    context = make_context("best-single")
    asked = []

    def choose(vector, curve):
        asked.append(curve.name)
        return make_context("best-single").choose(vector, curve)

    watched = replace(context, choose=choose)
    single = run_method("best-single", {}, watched)
    curves = {path: path.read_bytes() for path in (context.shared / "single-members").glob("*.curve.json")}
    assert len(curves) == 4 and len(asked) == 4
    taken = run_method("greedy", {}, replace(watched, directory=context.directory / "greedy"))
    assert {path: path.read_bytes() for path in curves} == curves
    assert context.rank(taken.selection.scores) <= context.rank(single.selection.scores)
    assert taken.seconds["selection"] > single.seconds["selection"] > 0


def test_what_all_candidates_share_counts_once(tmp_path):
    def unlearn(context, settings):
        seconds = {"training": 1.0 * settings.lr, SHARED: 100.0}
        return Outcome(checkpoint=context.directory / f"lr{settings.lr:g}", seconds=seconds)

    scores = {f"lr{i}": {"forget": float(i)} for i in (1, 2, 3)}
    _, context = fake_context(tmp_path, scores)
    module = fake_method(unlearn)
    outcome = unlearn_searched(module, {"lr": [1, 2, 3]}, context)
    assert outcome.seconds[SHARED] == 100.0 and outcome.seconds["training"] == 1.0
    assert outcome.seconds["search"] == pytest.approx(5.0, abs=0.1)  # the other two
    assert [trial["seconds"] for trial in outcome.search["candidates"]] == pytest.approx([1, 2, 3], abs=0.1)


def test_a_candidate_that_answers_with_nan_is_out(tmp_path):
    def unlearn(context, settings):
        return Outcome(checkpoint=context.directory / f"lr{settings.lr:g}", seconds={"training": 1.0})

    _, context = fake_context(tmp_path, {"lr2": {"forget": 3.0}})

    def judge(checkpoint):
        if checkpoint.name == "lr1":
            raise NegmergeError("the logits of the forget rows hold NaN or Inf: the model has diverged")
        return context.judge(checkpoint)

    outcome = unlearn_searched(fake_method(unlearn), {"lr": [1, 2]}, replace(context, judge=judge))
    assert outcome.search["winner"] == {"lr": 2} and "has diverged" in outcome.search["candidates"][0]["failed"]
