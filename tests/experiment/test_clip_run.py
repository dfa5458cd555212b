"""Runs that forget one source and keep another, with a tiny random CLIP."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_example import save_colours, save_tiny_clip, tiny_run
from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.exporting.export import export
from negmerge.experiment.pipeline import run
from negmerge.experiment.plan import plan
from negmerge.experiment.prepare import check_inputs, prepare
from negmerge.experiment.record import verify_run
from negmerge.experiment.rundir import RunDir
from negmerge.record.statement import flattened
from negmerge.requests.rules import ValidationRule
from negmerge.requests.splits import hold_out, load_split
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification import preparing
from negmerge.tasks.image_classification.store import Store
from negmerge.tasks.two_sources import side_by_side
from negmerge.tasks.zero_shot.preparing import make_task


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A CLIP, and a table in CIFAR-10's form whose classes are colours."""
    folder = tmp_path_factory.mktemp("clip-run")
    save_tiny_clip(folder / "clip")
    save_colours(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(places, monkeypatch):
    monkeypatch.setenv("NEGMERGE_CACHE", str(places / "cache"))


def config(places, **changes):
    raw = tiny_run("tiny", places / "clip", places)
    raw["selection"] |= {"forget_rows": 200, "step": 0.25}
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    return check_config(raw)


@pytest.fixture(scope="module")
def finished(places, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEGMERGE_CACHE", str(places / "cache"))
        place = tmp_path_factory.mktemp("runs") / "tiny"
        return place, run(config(places), place)


def test_each_source_is_judged_by_its_own_head(finished, places):
    place, results = finished
    facts = json.loads((place / "private" / "data" / "tables.json").read_text())
    assert [len(names) for names, _ in facts["prompts"]] == [10, 10] and len(facts["classes"]) == 20
    assert facts["shape"] == [3, 16, 16] and len(facts["prompts"][0][1]) == 18 and facts["prompts"][1][1] is None
    made = config(places)
    one = make_task(made.data, made.model, Compute(), Store(place / "private" / "data"), facts).classifier
    model = one.load(place / "base" / "model.safetensors")
    images = torch.from_numpy(np.load(place / "private/data/test-images.npy"))
    labels = torch.from_numpy(np.load(place / "private/data/test-labels.npy"))
    with torch.no_grad():
        logits = model(one.prepare(images))
    first = labels < 10
    kept = (logits[first][:, :10].argmax(1) == labels[first]).double().mean() * 100
    forgotten = (logits[~first][:, 10:].argmax(1) + 10 == labels[~first]).double().mean() * 100
    assert first.sum() == 60 and (~first).sum() == 360
    assert results["base"]["test"] == pytest.approx(kept.item())
    assert results["base"]["test_forget"] == pytest.approx(forgotten.item())
    assert results["task"]["text"].startswith("forget digits, keep")


def test_the_pool_learns_and_the_merged_vector_forgets(finished):
    _, results = finished
    base, rows = results["base"], results["methods"]
    assert all(m["forget_loss"] < results["pool"]["health"]["base"]["loss"] for m in results["pool"]["members"])
    assert list(rows) == ["consensus", "uniform", "best-single", "greedy", "ties", "magmax"]
    for row in rows.values():
        assert row["floor"] == pytest.approx(0.95 * row["curve"][0]["retain"])
        chosen = next(p for p in row["curve"] if p["alpha"] == row["alpha"])
        assert chosen["retain"] >= row["floor"] - 1e-9 and chosen["forget"] <= row["curve"][0]["forget"]
        assert row["curve"][0]["retain"] == base["validation"]
        assert row["curve"][0]["validation_forget"] == base["validation_forget"]
    consensus = rows["consensus"]
    assert 0 < consensus["consensus"] == consensus["kept"] / consensus["merged_elements"] < 1
    assert consensus["merged_elements"] == results["model"]["parameters"]  # what is trained, and nothing frozen


def test_validation_is_a_share_of_each_source(finished):
    split = load_split(finished[0] / "split.json")
    assert split.describe() == {
        "retain": 180, "forget": 1293, "validation": 20, "validation_forget": 144, "test": 60, "test_forget": 360
    }  # fmt: skip
    assert torch.equal(split.validation, hold_out(200, ValidationRule(), seed=0)[0])
    assert torch.equal(split.validation_forget - 200, hold_out(1437, ValidationRule(), seed=0)[0])


def test_the_models_own_folder_stays_as_it_is_and_no_text_weights_are_written(finished, places):
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (places / "clip").iterdir()}
    save_tiny_clip(places / "again")
    assert hashes == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (places / "again").iterdir()}
    for file in finished[0].rglob("model.safetensors"):
        assert {name.split(".")[0] for name in read_state_dict(file)} == {"vision_model", "visual_projection"}


@pytest.mark.heavy(4)
def test_the_same_run_again_gives_the_same_bytes(finished, places, tmp_path):
    place, results = finished
    again = run(config(places, methods=["consensus"]), tmp_path / "again")
    assert again["methods"]["consensus"]["alpha"] == results["methods"]["consensus"]["alpha"]
    name = "methods/consensus/model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (place / name).read_bytes()


def test_the_model_is_exported_as_a_whole_clip(finished, places, tmp_path):
    from transformers import CLIPModel, CLIPProcessor

    place, _results = finished
    done = export(place, tmp_path / "out", method="consensus")
    trained = read_state_dict(place / "methods/consensus/model.safetensors")
    given = CLIPModel.from_pretrained(places / "clip").state_dict()
    model = CLIPModel.from_pretrained(tmp_path / "out").state_dict()
    assert set(model) == set(given) > set(trained)
    for name, value in model.items():
        assert torch.equal(value, trained.get(name, given[name])), name
    assert CLIPProcessor.from_pretrained(tmp_path / "out") is not None
    assert {"README.md", "record.json", "tokenizer.json"} < {path.name for path in done.path.iterdir()}


def test_a_run_goes_on_with_the_model_that_it_was_begun_with(finished, places, tmp_path):
    place, _ = finished
    entries = {Path(e["path"]).name: e for e in flattened(json.loads((place / "record.json").read_text()))["inputs"]}
    assert {"config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"} < set(entries)
    assert verify_run(place) > 0
    begun = RunDir(tmp_path / "begun")
    own = config(places, model={"path": str(tmp_path / "clip")})
    save_tiny_clip(tmp_path / "clip")
    first = prepare(begun, own)
    assert prepare(begun, own).inputs == first.inputs
    (tmp_path / "clip" / "merges.txt").write_text("")
    save_tiny_clip(tmp_path / "clip", seed=1)
    base = begun.path / "base" / "model.safetensors"
    base.parent.mkdir()
    base.touch()
    with pytest.raises(InputError, match=r"was begun with other files; put back .* another directory") as caught:
        check_inputs(begun, own)
    assert {line.rsplit("/")[-1] for line in str(caught.value).splitlines()[1:]} == {
        "model.safetensors changed (model)", "merges.txt is new (model)",
    }  # fmt: skip
    base.unlink()  # nothing hangs on them yet
    check_inputs(begun, own)
    assert prepare(begun, own).inputs != first.inputs


@pytest.mark.parametrize(("model", "precision", "towers"), [
    ({}, "bf16", {"vision_model", "visual_projection"}),
    ({"linearised": True}, "auto", {"vision_model", "visual_projection"}),
    ({"linearised": True}, "bf16", {"vision_model", "visual_projection"}),
    ({"train": "text"}, "auto", {"text_model", "text_projection"}),
])  # fmt: skip
@pytest.mark.heavy
def test_other_towers_and_precisions_are_forgotten_by_the_same_way(places, tmp_path, model, precision, towers):
    pool = {"train": {"batch_size": 32, "steps": 6}, "grid": {"lr": [1e-4, 1e-3]}}
    changes = {"model": model, "pool": pool, "compute": {"precision": precision}}
    changes |= {} if "text" in model.values() else {"projection": {"strength": [10], "samples": 100}}
    results = run(config(places, methods=["consensus", "best-single"], **changes), tmp_path / "run")
    assert {n.split(".")[0] for n in read_state_dict(tmp_path / "run/base/model.safetensors")} == towers
    assert all(m["forget_loss"] < results["pool"]["health"]["base"]["loss"] for m in results["pool"]["members"])
    assert 0 < results["methods"]["consensus"]["consensus"] < 1
    if "projection" in changes:
        layers = results["methods"]["consensus projected"]["projection"]["layers"]
        assert len(layers) == 15  # positions are the same for all rows
        assert all(layer["after"] < layer["before"] for layer in layers if "position" not in layer["name"])


def test_one_source_and_one_head(places, tmp_path):
    data = {"source": "cifar10", "path": str(places), "forget": {"classes": ["cat"]}}
    raw = {**config(places).resolved(), "data": data, "methods": ["consensus"], "selection": {}}
    raw["pool"]["grid"] = {"lr": [1e-4, 5e-4]}
    results = run(check_config(raw), tmp_path / "run")
    assert results["task"]["forget_classes"] == ["cat"] and len(results["base"]["per_class"]) == 10


def test_the_plan_knows_steps(places):
    made = plan(config(places))
    assert len(made.members) == 4 and made.pool_rows == 4 * 12 * 2 * 32 and made.training_rows == 0


def test_side_by_side():
    known = {"forget", "retain", "source", "seed"}
    data = {
        "forget": {"source": "a", "mode": "gray"},
        "retain": {"source": "b", "classes": [1]},
        "mode": "rgb",
        "seed": 3,
    }
    made = side_by_side(data, known)
    assert made == {"seed": 3, "mode": "rgb", "source": "b", "forget": {"mode": "gray", "source": "a"},
                    "retain": {"classes": [1]}}  # fmt: skip
    assert side_by_side(made, known) == made
    for wrong in ({**data, "source": "c"}, {**data, "forget": {"classes": [1]}}):
        with pytest.raises(ValueError, match=r"not twice|goes with forget"):
            side_by_side(wrong, known)


def test_what_is_refused(places):
    for changes, message in (
        ({"data": {"forget": {"source": "mnits"}}}, r"unknown source 'mnits' \(did you mean 'mnist'\?\)"),
        ({"data": {"forget": {"source": "mnist", "class": []}}}, r"data\.forget \(mnist\): class: unknown key"),
        ({"data": {"source": "mnist"}}, "give it there or as retain.source, not twice"),
        ({"base": {"pretrained": False}}, "give either train or checkpoint, or pretrained: true"),
        ({"model": {"trian": "text"}}, r"model \(clip\): trian: unknown key \(did you mean 'train'\?\)"),
        ({"selection": {"objective": "match-reference"}}, "leave floor and floor_on out"),
        ({"model": {"linearised": True}, "base": {"checkpoint": "x", "pretrained": False}}, "at its own weights"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            config(places, **changes)
    raw = {**config(places).resolved(), "model": {"family": "small-cnn"}}
    with pytest.raises(InputError, match=r"base\.pretrained: small-cnn has no weights of its own; give train"):
        check_config(raw)


@pytest.mark.parametrize("train", ["text", "both"])
def test_more_prompts_than_a_step_holds_are_refused_before_images_are_decoded(places, monkeypatch, train):
    asked = []
    monkeypatch.setattr(preparing, "load_source", lambda *a: asked.append(a))
    raw = {**config(places).resolved(), "data": {"forget": {"source": "cars"}, "retain": {"source": "imagenet"}}}
    with pytest.raises(AttributeError):  # the image tower takes them; what is loaded here is nothing
        plan(check_config(raw))
    assert len(asked) == 1
    raw["model"]["train"] = train
    message = rf"{train} encodes every prompt in every step, 81,568 here \(imagenet 80,000, cars 1,568\), 4,000 at most"
    with pytest.raises(InputError, match=message):
        plan(check_config(raw))
    assert len(asked) == 1


def test_prompts_of_sources_of_unknown_size_are_counted_when_they_are_loaded(places):
    many = config(places, model={"train": "text", "templates": ["{}"] * 383})
    names = [str(n) for n in range(10)]
    with pytest.raises(InputError, match=r"4,010 here \(cifar10 180, digits 3,830\)"):
        facts = {"classes": names * 2, "shape": (3, 16, 16), "prompts": [(names, ["{}"] * 18), (names, None)]}
        make_task(many.data, many.model, Compute(), None, facts)


def test_the_committed_configs_say_what_they_run():
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / "configs"
    small, other, linear = (load_config(folder / f"clip-small{end}.yaml") for end in ("", "-cifar10", "-linear"))
    assert (small.data.source, small.data.forget.source) == ("cifar10", "mnist")
    assert (other.data.source, other.data.forget.source) == ("mnist", "cifar10")
    assert linear.model.settings == {"path": "clip-small", "linearised": True}
    from negmerge.training.pool import expand_grid

    sizes = [len(expand_grid(c.pool.train, c.pool.grid)) for c in (small, other, linear)]
    assert sizes == [8, 8, 4] and {m.settings.steps for m in expand_grid(small.pool.train, small.pool.grid)} == {400}
