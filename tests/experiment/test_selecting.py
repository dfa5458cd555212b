"""Objectives and buffer policies in whole runs on the digits."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.requests.splits import load_split
from negmerge.scores import accuracy, holdout_distance, membership_svc
from negmerge.seeding import derive_seed
from negmerge.tasks.columns import COLUMNS, columns_of
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict
from negmerge.tasks.image_classification.store import Store

RANDOM = {
    "name": "random",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"fraction": 0.1}},
    "base": {"train": {"epochs": 12, "lr": 0.01, "batch_size": 64, "schedule": "one-cycle"}},
    "reference": {"train": "base"},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3], "epochs": [4, 8]}},
    "methods": ["consensus"],
}


def config(**changes):
    return check_config({**yaml.safe_load(yaml.safe_dump(RANDOM)), **changes})


def measured(place, model, most=2000):
    """The four parts as selection measures them, computed anew from the files of a run."""
    classifier = Classifier("small-cnn", {"width": 8}, 10, (1, 8, 8))
    table = Store(place / "private" / "data").table("train")
    split = load_split(place / "split.json")
    weights = classifier.load(place / model / "model.safetensors")
    pairs = {}
    for name in ("retain", "forget", "validation"):
        images, labels = table.take(getattr(split, name))
        pairs[name] = columns_of(predict(classifier, weights, images), labels, COLUMNS)
    parts = {name: accuracy(columns["correct"]) for name, columns in pairs.items()}
    sure = [pairs[name]["confidence"] for name in ("retain", "validation", "forget")]
    parts["membership"] = membership_svc(*sure, seed=derive_seed(0, "selection attack"), most=most)
    original = classifier.load(place / "base" / "model.safetensors")
    unseen = columns_of(predict(classifier, original, images), labels, COLUMNS)  # the last part: validation
    return parts, holdout_distance(pairs["forget"], unseen)


@pytest.fixture(scope="module")
def holdout(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "holdout"
    rule = {"objective": "match-holdout", "max_alpha": 4.0, "step": 0.25}
    methods = [
        "consensus",
        {"name": "uniform", "buffers": {"recalibrate": "retain", "rows": 600}},
        {"name": "uniform", "label": "negated", "buffers": "negate"},
    ]
    return place, run(config(selection=rule, methods=methods), place)


@pytest.fixture
def originals(holdout):
    """Base and reference of that run, for others of the same seed and split."""
    return {name: {"checkpoint": str(holdout[0] / name / "model.safetensors")} for name in ("base", "reference")}


def test_match_reference_is_the_smallest_gap_of_its_curve(originals, tmp_path):
    rule = {"objective": "match-reference", "search": "grid", "max_alpha": 3.0, "step": 0.5}
    results = run(config(selection=rule, **originals), tmp_path / "run")
    row = results["methods"]["consensus"]
    assert row["alpha"] == min(row["curve"], key=lambda point: (point["gap"], point["alpha"]))["alpha"]
    assert row["floor"] is None and results["selection"]["floor"] is None and row.get("oracle") is None
    ours, _ = measured(tmp_path / "run", "methods/consensus")
    target, _ = measured(tmp_path / "run", "reference")
    chosen = next(point for point in row["curve"] if point["alpha"] == row["alpha"])
    assert {key: chosen[key] for key in ours} == pytest.approx(ours)
    assert chosen["gap"] == pytest.approx(sum(abs(ours[key] - target[key]) for key in ours) / 4)


def test_matching_the_forget_rows_alone_compares_nothing_else(originals, tmp_path):
    rule = {"objective": "match-reference", "match": ["forget"], "search": "grid", "max_alpha": 3.0, "step": 0.5}
    results = run(config(selection=rule, **originals), tmp_path / "run")
    row = results["methods"]["consensus"]
    target = measured(tmp_path / "run", "reference")[0]["forget"]
    assert results["selection"]["match"] == ["forget"]
    assert [point["gap"] for point in row["curve"]] == pytest.approx(
        [abs(point["forget"] - target) for point in row["curve"]]
    )
    assert row["alpha"] == min(row["curve"], key=lambda point: (point["gap"], point["alpha"]))["alpha"]
    assert row["gap"] == pytest.approx(  # the table's own gap stays the mean of all four
        sum(abs(row[key] - results["reference"][key]) for key in ("forget", "retain", "test", "membership")) / 4
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "the smallest distance to the retrained model in forget alone" in page


def test_a_candidate_that_answers_with_nan_is_the_worst(originals, tmp_path):
    rule = {"objective": "match-reference", "search": "grid", "max_alpha": 1e38, "step": 1e38}
    row = run(config(selection=rule, **originals), tmp_path / "run")["methods"]["consensus"]
    worst = {"alpha": 1e38, "forget": 0.0, "retain": 0.0, "gap": 100.0}
    assert row["alpha"] == 0.0 and row["curve"][1] == worst


def test_match_holdout_sees_no_reference_and_is_compared_with_the_oracle(holdout):
    place, results = holdout
    row = results["methods"]["consensus"]
    base = row["curve"][0]
    holding = [point for point in row["curve"] if point["retain"] >= row["floor"]]
    assert row["alpha"] == min(holding, key=lambda point: (point["holdout"], point["alpha"]))["alpha"]
    assert row["floor"] == pytest.approx(0.95 * base["retain"])
    assert all("gap" not in point and "membership" not in point for point in row["curve"])
    chosen = next(point for point in row["curve"] if point["alpha"] == row["alpha"])
    assert chosen["holdout"] == pytest.approx(measured(place, "methods/consensus")[1])
    oracle = row["oracle"]
    gaps = json.loads((place / "private/methods/consensus/oracle.json").read_text())
    assert oracle["gap"] == min(point["gap"] for point in gaps.values()) <= oracle["gap_chosen"]
    ours, target = measured(place, "methods/consensus")[0], measured(place, "reference")[0]
    assert oracle["gap_chosen"] == pytest.approx(sum(abs(ours[key] - target[key]) for key in ours) / 4)


def test_negated_buffers_merge_like_weights_and_variances_stay_positive(holdout):
    place, results = holdout
    row = results["methods"]["negated"]
    assert row["buffers"] == "negate" and row["needs"] == ["pool", "forget"]
    vector = load_file(place / "private" / "methods" / "negated" / "merged.safetensors")
    base, moved = (read_state_dict(place / name / "model.safetensors") for name in ("base", "methods/negated"))
    means, variances = (sorted(name for name in base if name.endswith(word)) for word in ("_mean", "_var"))
    assert means and len(means) == len(variances)
    for name in means:
        torch.testing.assert_close(moved[name], base[name] - row["alpha"] * vector[name])
        assert not torch.equal(moved[name], base[name])
    for name in variances:
        torch.testing.assert_close(moved[name], (base[name] - row["alpha"] * vector[name]).clamp(min=1e-5))
        assert moved[name].min() > 0
    counters = [name for name in base if name.endswith("num_batches_tracked")]
    assert counters and all(torch.equal(moved[name], base[name]) and name not in vector for name in counters)
    chosen = next(point for point in row["curve"] if point["alpha"] == row["alpha"])
    assert chosen["forget"] == row["forget"]  # the written model is the one that was chosen


def test_recalibrated_buffers_are_those_of_the_retain_rows(holdout):
    place, results = holdout
    assert results["methods"]["uniform"]["needs"] == ["pool", "forget", "retain"]
    assert results["methods"]["uniform"]["buffers"] == "recalibrate on 600 retain rows"
    assert results["methods"]["consensus"]["needs"] == ["pool", "forget"] and results["model"]["buffers"] == "keep"
    base, kept, moved = (
        read_state_dict(place / name / "model.safetensors") for name in ("base", "methods/consensus", "methods/uniform")
    )
    assert torch.equal(kept["1.running_mean"], base["1.running_mean"])
    assert not torch.equal(moved["1.running_mean"], base["1.running_mean"])
    assert torch.equal(moved["1.num_batches_tracked"], base["1.num_batches_tracked"])
    split = load_split(place / "split.json")
    images, _ = Store(place / "private" / "data").table("train").take(split.retain)
    classifier = Classifier("small-cnn", {"width": 8}, 10, (1, 8, 8))
    first = classifier.load(place / "methods/uniform/model.safetensors")[0]
    hidden = first(classifier.prepare(images)).detach()
    torch.testing.assert_close(moved["1.running_mean"], hidden.mean((0, 2, 3)), atol=0.02, rtol=0.05)
    row = results["methods"]["uniform"]
    chosen = next(point for point in row["curve"] if point["alpha"] == row["alpha"])
    assert chosen["forget"] == row["forget"]  # the written model is the one that was chosen


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"selection": {"objective": "match-reference"}, "reference": "none"},
            "config: selection: match-reference needs a reference",
        ),
        (
            {"selection": {"objective": "match-holdout"}, "data": {"source": "digits", "forget": {"classes": ["3"]}}},
            "match-holdout needs unseen rows that look like the forget rows",
        ),
        (
            {"selection": {"objective": "retain-floor", "match": ["forget"]}},
            "match names what match-reference compares",
        ),
        ({"selection": {"objective": "match-reference", "match": []}}, "selection.match"),
        ({"selection": {"objective": "match-reference", "floor": 0.9}}, "match-reference knows no floor"),
        ({"buffers": "melt"}, "buffers: write keep, negate, or {recalibrate: retain, rows: 2000}"),
        ({"buffers": {"recalibrate": "test"}}, "buffers.*recalibrate: Input should be 'retain' or 'forget'"),
        ({"methods": [{"name": "retrain", "buffers": "keep"}]}, "method retrain does not merge: leave out buffers"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)


def test_a_part_that_no_gap_has_is_named_before_anything_is_trained(originals, tmp_path):
    rule = {"objective": "match-reference", "match": ["forgotten"]}
    with pytest.raises(InputError, match="match: forgotten is no part of the average gap; choose among "):
        run(config(selection=rule, **originals), tmp_path / "run")


def test_the_split_of_a_file_is_checked_too(holdout, tmp_path):
    place, _ = holdout
    changed = config(
        data={"source": "digits", "forget": {"classes": ["3"]}},
        base={"checkpoint": str(place / "base" / "model.safetensors")},
        reference="none",
        pool={"train": {"batch_size": 32}, "grid": {"epochs": [1]}},
        methods=["uniform"],
    )
    run(changed, tmp_path / "class")
    split = {"source": "digits", "split": str(tmp_path / "class" / "split.json")}
    with pytest.raises(InputError, match="match-holdout needs unseen rows that look like the forget rows"):
        config(data=split, selection={"objective": "match-holdout"})
    assert config(data=split).selection.objective == "retain-floor"
