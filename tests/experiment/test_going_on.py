"""A run goes on with what is there: after a changed config, a changed file, a diverged member, a purge."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from negmerge.errors import InputError, NegmergeError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.record import verify_run
from negmerge.record.digests import digests_of
from negmerge.record.statement import flattened

SMALL = {
    "name": "small",
    "workers": 1,
    "threads": 1,
    "device": "cpu",
    "model": {"family": "small-cnn", "width": 4},
    "data": {"source": "digits", "forget": {"classes": ["3"]}, "train_rows": [0, 400]},
    "base": {"train": {"epochs": 2, "lr": 0.01, "batch_size": 64}},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3], "epochs": [1]}},
    "methods": ["consensus"],
    "selection": {"floor": 0.9, "search": "grid", "step": 0.5},
    "evaluation": {"membership": []},
}


def config(**changes):
    return check_config({**yaml.safe_load(yaml.safe_dump(SMALL, sort_keys=False)), **changes})


class Watch:
    """What a run tells: which models it trained, what it made anew, which α it evaluated."""

    def __init__(self):
        self.events = []

    def of(self, event, key):
        return [one[key] for one in self.events if one["event"] == event]

    trained = property(lambda self: self.of("trained", "name"))
    renewed = property(lambda self: self.of("renewed", "because"))
    evaluated = property(lambda self: self.of("evaluated", "alpha"))


def go_on(place, **changes):
    watch = Watch()
    options = {key: changes.pop(key) for key in ("fresh", "purge", "purge_base") if key in changes}
    results = run(config(**changes), place, on_event=watch.events.append, **options)
    return results, watch


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "seconds_parts", "time", "std")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


LONG = pytest.mark.heavy(4)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "small"
    run(config(), place)
    return place


@pytest.fixture
def place(begun, tmp_path):
    return shutil.copytree(begun, tmp_path / "run", copy_function=shutil.copy2)


@pytest.mark.parametrize(
    ("changes", "trained", "renewed", "evaluates"),
    [
        ({"selection": {**SMALL["selection"], "floor": 0.2}}, [], ["chosen"], False),
        pytest.param({"selection": {**SMALL["selection"], "step": 0.25}}, [], ["chosen"], True, marks=LONG),
        pytest.param({"selection": {**SMALL["selection"], "retain_rows": 50}}, [], ["judged"], True, marks=LONG),
        ({"methods": ["consensus", "uniform"]}, [], [], True),
        pytest.param({"buffers": "negate"}, [], ["made"], True, marks=LONG),
        pytest.param({"methods": [{"name": "consensus", "threshold": 0.5}]}, [], ["made"], True, marks=LONG),
        pytest.param({"reference": {"train": "base"}}, ["reference"], [], False, marks=LONG),
        pytest.param({"evaluation": {"membership": [], "most": 50}}, [], [], False, marks=LONG),
        pytest.param({"workers": 2, "threads": 2, "name": "other"}, [], [], False, marks=LONG),
        (
            {"pool": {**SMALL["pool"], "grid": {"lr": [1e-3, 3e-3], "epochs": [1, 2]}}},
            ["001-lr0.001-epochs2", "003-lr0.003-epochs2"],
            ["made"],
            True,
        ),
    ],
    ids=[
        "floor", "step", "rows", "further method", "buffers", "threshold", "reference", "evaluation", "work",
        "larger grid",
    ],
)  # fmt: skip
def test_a_changed_config_goes_on_with_what_is_there(place, tmp_path, changes, trained, renewed, evaluates):
    base = (place / "base" / "model.safetensors").read_bytes()
    results, watch = go_on(place, **changes)
    assert watch.trained == trained and [r for r in watch.renewed if r] == renewed * (1 if renewed else 0)
    assert bool(watch.evaluated) == evaluates
    assert (place / "base" / "model.safetensors").read_bytes() == base
    verify_run(place)
    if not trained and "workers" not in changes:
        whole, _ = go_on(tmp_path / "fresh", **changes)
        assert without_times(results) == without_times(whole)


@pytest.mark.heavy(3)
def test_another_objective_goes_on(place):
    data = {"source": "digits", "forget": {"fraction": 0.05}, "train_rows": [0, 400]}
    first = place.parent / "random"
    go_on(first, data=data, selection={**SMALL["selection"], "objective": "retain-floor"})
    results, watch = go_on(first, data=data, selection={**SMALL["selection"], "objective": "match-holdout"})
    assert watch.trained == [] and watch.renewed == ["judged"] and watch.evaluated
    assert results["selection"]["objective"] == "match-holdout"


@pytest.mark.heavy(3)
def test_a_larger_grid_keeps_the_members_that_are_there(place):
    before = {p.parent.name: p.read_bytes() for p in (place / "private/pool").glob("*/model.safetensors")}
    results, _ = go_on(place, pool={**SMALL["pool"], "grid": {"lr": [5e-4, 1e-3, 3e-3], "epochs": [1]}})
    names = [member["name"] for member in results["pool"]["members"]]
    assert names == ["000-lr0.0005-epochs1", "001-lr0.001-epochs1", "002-lr0.003-epochs1"]
    after = {p.parent.name: p.read_bytes() for p in (place / "private/pool").glob("*/model.safetensors")}
    assert len(after) == 3 and all(after[name] == weights for name, weights in before.items())
    again, watch = go_on(place)  # and back
    assert watch.trained == [] and [m["name"] for m in again["pool"]["members"]] == list(sorted(before))


@pytest.mark.heavy(3)
def test_other_settings_of_the_pool_train_it_anew(place):
    results, watch = go_on(place, pool={**SMALL["pool"], "train": {"batch_size": 16}})
    assert len(watch.trained) == 2 and watch.renewed
    whole, _ = go_on(place.parent / "whole", pool={**SMALL["pool"], "train": {"batch_size": 16}})
    assert without_times(results["methods"]) == without_times(whole["methods"])


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {**SMALL["data"], "forget": {"classes": ["4"]}}},
        {"model": {"family": "small-cnn", "width": 8}},
        {"base": {"train": {**SMALL["base"]["train"], "epochs": 3}}},
        {"seeds": [0, 1]},
    ],
    ids=["request", "model", "base", "seeds"],
)
def test_what_everything_hangs_on_is_refused_with_the_difference(place, changes):
    with pytest.raises(InputError, match=r"holds a run of another config.*--fresh") as caught:
        go_on(place, **changes)
    assert "\n  +" in str(caught.value)
    results, watch = go_on(place)
    assert watch.trained == [] and results["methods"]


def test_fresh_begins_anew_and_leaves_what_is_not_the_runs(place):
    (place / "notes.txt").write_text("mine")
    results, watch = go_on(place, fresh=True, data={**SMALL["data"], "forget": {"classes": ["4"]}})
    assert results["task"]["forget_classes"] == ["4"] and len(watch.trained) == 3
    assert (place / "notes.txt").read_text() == "mine"


@pytest.mark.heavy(4)
def test_further_seeds_are_added_to_several(tmp_path):
    go_on(tmp_path / "seeds", seeds=[0, 1])
    results, watch = go_on(tmp_path / "seeds", seeds=[0, 1, 2])
    assert len(watch.trained) == 3 and results["seeds"] == [0, 1, 2]


def test_one_diverged_member_is_left_out_and_told(tmp_path):
    pool = {"train": {"batch_size": 32, "optimizer": "sgd"}, "grid": {"lr": [1e-3, 1e30, 1e-2], "epochs": [1]}}
    results, watch = go_on(tmp_path / "run", pool=pool)
    bad = "001-lr1e+30-epochs1"
    assert watch.of("diverged", "name") == [bad]
    assert [member["name"] for member in results["pool"]["members"]] == ["000-lr0.001-epochs1", "002-lr0.01-epochs1"]
    warned = [one for one in results["warnings"] if one["name"] == "diverged-member"]
    assert len(warned) == 1 and f"member {bad} is left out: training diverged" in warned[0]["text"]
    assert bad in (tmp_path / "run" / "report.html").read_text()
    pool["grid"]["lr"] = [1e-3, 1e-2]
    again, watch = go_on(tmp_path / "run", pool=pool)
    assert watch.trained == [] and not [one for one in again["warnings"] if one["name"] == "diverged-member"]
    assert again["methods"]["consensus"]["forget"] == results["methods"]["consensus"]["forget"]


@pytest.mark.heavy(9)
def test_a_failed_first_run_does_not_block_its_own_correction(tmp_path):
    pool = {"train": {"batch_size": 32, "optimizer": "sgd"}, "grid": {"lr": [1e30], "epochs": [1]}}
    with pytest.raises(NegmergeError, match="every member of the pool diverged; the first, 000-lr1e"):
        go_on(tmp_path / "a", pool=pool)
    assert go_on(tmp_path / "a")[1].trained == ["000-lr0.001-epochs1", "001-lr0.003-epochs1"]
    wild = {"train": {**SMALL["base"]["train"], "lr": 1e30, "optimizer": "sgd"}}
    with pytest.raises(NegmergeError, match="base: training diverged"):
        go_on(tmp_path / "b", base=wild)
    assert len(go_on(tmp_path / "b")[1].trained) == 3
    with pytest.raises(InputError, match="does not fit"):
        go_on(
            tmp_path / "c",
            base={"checkpoint": str(tmp_path / "a/base/model.safetensors")},
            model={"family": "small-cnn"},
        )
    results, _ = go_on(tmp_path / "c", base={"checkpoint": str(tmp_path / "a/base/model.safetensors")})
    assert results["methods"]
    with pytest.raises(InputError, match="unknown class 'three'"):
        go_on(tmp_path / "d", data={**SMALL["data"], "forget": {"classes": ["three"]}})
    assert go_on(tmp_path / "d")[0]["task"]["forget_classes"] == ["3"]


def pictures(root, count):
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("L", (8, 8), 100 * label + i).save(root / name / f"{i:03}.png")


@pytest.fixture(scope="module")
def run_on_files(tmp_path_factory):
    """A run whose base, reference, request and rows all came from files; it may be changed by whoever puts it back."""
    folder = tmp_path_factory.mktemp("on-files") / "work"
    pictures(folder / "img", 20)
    changes = {
        "data": {"source": "image-folder", "path": str(folder / "img"), "forget": {"files": str(folder / "list")}}
    }
    (folder / "list").write_text("cat/003.png\ncat/007.png\n")
    go_on(folder / "one", data=changes["data"])
    for name in ("base", "reference"):
        shutil.copy(folder / "one/base/model.safetensors", folder / f"{name}.safetensors")
        changes[name] = {"checkpoint": str(folder / f"{name}.safetensors")}
    split = json.loads((folder / "one" / "split.json").read_text())
    assert {one["id"] for one in split["forgotten"]} <= {"cat/003.png", "cat/007.png"}
    go_on(folder / "run", **changes)
    return folder, changes


@pytest.fixture
def on_files(run_on_files):
    """The same run, as it was when it had ended: its record names paths, so it stays in its place."""
    folder, changes = run_on_files
    kept = folder.with_name("kept")
    if not kept.exists():
        shutil.copytree(folder, kept)
    shutil.rmtree(folder)
    return shutil.copytree(kept, folder), changes


@pytest.mark.parametrize(
    "name",
    [
        "base.safetensors",
        pytest.param("reference.safetensors", marks=LONG),
        "img/dog/002.png",
        pytest.param("img/dog/999.png", marks=LONG),
        pytest.param("list", marks=LONG),
    ],
)
@pytest.mark.parametrize(
    "finished", [pytest.param(True, marks=pytest.mark.heavy(4)), False], ids=["repeated", "resumed"]
)
def test_a_file_that_changed_under_a_run_is_refused_by_name(on_files, name, finished):
    folder, changes = on_files
    if not finished:
        for gone in ("results.json", "record.json", "methods/consensus/outcome.json"):
            (folder / "run" / gone).unlink()
    file, content = folder / name, None
    if file.suffix == ".safetensors":
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif file.suffix == ".png":
        content = file.read_bytes() if file.exists() else None
        Image.new("L", (8, 8), 77).save(file)
    else:
        content = file.read_bytes()
        file.write_text("cat/003.png\n")
    with pytest.raises(InputError, match="was begun with other files; put back what was there") as caught:
        go_on(folder / "run", **changes)
    assert str(file) in str(caught.value)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)  # put back: another time of change, the same content
    results, watch = go_on(folder / "run", **changes)
    assert results["methods"] and watch.trained == []


def test_the_record_holds_the_hashes_of_what_was_used(on_files):
    folder, _ = on_files
    record = flattened(json.loads((folder / "run/record.json").read_text()))
    inputs = {entry["path"]: entry["hash"] for entry in record["inputs"]}
    for name in ("base.safetensors", "reference.safetensors", "list"):
        assert inputs[str(folder / name)] == f"sha256:{digests_of(folder / name).sha256}"
    data = [one for one in json.loads((folder / "run/inputs.json").read_text())["files"] if one["role"] == "data"]
    assert len(data) == 40 and verify_run(folder / "run") >= 40
    Image.new("L", (8, 8), 77).save(folder / "img/dog/002.png")
    with pytest.raises(InputError, match="1 files are not what the record says") as caught:
        verify_run(folder / "run")
    assert "dog/002.png" in str(caught.value)


@pytest.mark.heavy(3)
def test_rows_that_are_gone_are_no_change(on_files):
    folder, changes = on_files
    for name in ("cat/003.png", "cat/007.png"):
        (folder / "img" / name).unlink()
    before = json.loads((folder / "run/results.json").read_text())
    assert go_on(folder / "run", **changes)[0] == before


@pytest.mark.parametrize("name", ["base/model.safetensors", "private/pool/000-lr0.001-epochs1/model.safetensors"])
def test_a_model_of_the_run_that_changed_is_refused_by_name(place, name):
    file = place / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="changed since the run made it; put back what was there, or begin") as caught:
        go_on(place, methods=["consensus", "uniform"])
    assert name in str(caught.value)


def test_purging_removes_what_knows_the_forget_set_and_says_what_is_left(place):
    results, _ = go_on(place, methods=["consensus", "original"], purge=True)
    assert not (place / "private").exists() and (place / "base/model.safetensors").exists()
    record = flattened(json.loads((place / "record.json").read_text()))
    left = {one["path"]: one["what"] for one in record["on_disk"]}
    assert "it knows what was forgotten" in left["base/model.safetensors"] and "private/" not in left
    assert record["purged"] == ["private"]
    assert go_on(place, methods=["consensus", "original"])[0] == results and verify_run(place)
    go_on(place, methods=["consensus", "original"], purge_base=True)
    assert not (place / "base/model.safetensors").exists()
    assert not (place / "methods/original/model.safetensors").exists()
    assert (place / "methods/consensus/model.safetensors").exists() and verify_run(place)
    record = flattened(json.loads((place / "record.json").read_text()))
    assert record["purged"] == ["base/model.safetensors", "methods/original/model.safetensors", "private"]
    page = (place / "report.html").read_text()
    assert "methods/consensus/model.safetensors" in page and "Removed at the end" in page
    again, watch = go_on(place, methods=["consensus"])  # made anew from the config, as the same numbers
    assert len(watch.trained) == 3
    assert without_times(again["methods"]["consensus"]) == without_times(results["methods"]["consensus"])
