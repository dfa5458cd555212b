"""A family, a source, a competitor, a merge method and a score, each one file that a config names by its path."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.pipeline import run
from negmerge.record.statement import flattened

HERE = Path(__file__).parent
KINDS = ("family", "source", "competitor", "merge_method", "score")


def config(folder, **changes):
    files = {kind: {"file": str(folder / f"{kind}.py")} for kind in KINDS}
    raw = {
        "name": "own",
        "workers": 1,
        "threads": 1,
        "model": {"family": files["family"], "bias": False},
        "data": {"source": files["source"], "count": 200, "forget": {"classes": ["b"]}},
        "base": {"train": {"epochs": 10, "lr": 0.05, "batch_size": 20}},
        "pool": {"train": {"batch_size": 20}, "grid": {"lr": [0.01, 0.03], "epochs": [4]}},
        "methods": ["consensus", {"name": files["merge_method"]}, {"name": files["competitor"], "share": 0.25}],
        "evaluation": {"membership": [], "scores": [files["score"], "loss-auc"]},
    }
    return check_config({**raw, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plug-ins")
    for kind in KINDS:
        shutil.copy(HERE / f"{kind}.py", folder)
    return folder, run(config(folder), folder / "run")


def test_each_is_one_file(finished):
    folder, results = finished
    assert list(results["methods"]) == ["consensus", "merge_method", "competitor"]
    assert results["model"]["family"] == "family" and results["model"]["parameters"] == 64
    assert results["task"]["text"] == "forget class b of source" and results["base"]["forget"] == 100.0
    assert results["methods"]["merge_method"]["forget"] < 100.0
    weights = {
        name: read_state_dict(folder / "run" / name / "model.safetensors") for name in ("base", "methods/competitor")
    }
    assert torch.equal(0.25 * weights["base"]["1.weight"], weights["methods/competitor"]["1.weight"])
    assert 50.0 < results["base"]["forget_confidence"] <= 100.0
    assert results["methods"]["consensus"]["forget_confidence"] < results["base"]["forget_confidence"]
    assert 0.0 <= results["base"]["membership_loss_auc"] <= 100.0
    titles = {score["name"]: score["title"] for score in results["scores"]}
    assert titles["forget_confidence"] == "confidence" and titles["membership_loss_auc"] == "loss AUC"
    page = (folder / "run" / "report.html").read_text()
    assert "Confidence" in page and "Loss AUC" in page
    inputs = {
        Path(entry["path"]).name
        for entry in flattened(json.loads((folder / "run" / "record.json").read_text()))["inputs"]
    }
    assert {f"{kind}.py" for kind in KINDS} <= inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"forget", "conf', '"forgets", "conf'), r"needs the part 'forgets', .* \(did you mean 'forget'"),
        (('"forget_confidence"', '"alpha"'), "'alpha' is a fact of every row"),
        (('"forget_confidence"', '"retain"'), "there is a score 'retain' already"),
        (('"confidence")}', '"surprise")}'), "needs the column 'surprise' of the model"),
    ],
)
def test_what_is_wrong_with_a_score_is_said_before_anything_is_trained(tmp_path, change, message):
    (tmp_path / "mine.py").write_text((HERE / "score.py").read_text().replace(*change))
    wrong = config(HERE, evaluation={"scores": [{"file": str(tmp_path / "mine.py")}]})
    with pytest.raises(InputError, match=message):
        run(wrong, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("model.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"family": {"file": "gone.py"}}}, r"gone.py: no such file; give the path of a plug-in"),
        ({"model": {"family": {"path": "a.py"}}}, r"model.family: write a name, or \{file: PATH\}"),
        ({"model": {"family": {"file": "a.txt"}}}, r"model.family: write a name, or \{file: PATH\} .* Python file"),
        ({"model": {"family": {"file": str(HERE / "source.py")}}}, r"source.py'? .*lacks build, prepare$"),
        ({"evaluation": {"scores": [{"file": str(HERE / "source.py")}]}}, r"source.py'? .*lacks SCORE"),
        ({"evaluation": {"scores": ["loss-auk"]}}, r"unknown score 'loss-auk' \(did you mean 'loss-auc'\?\)"),
        ({"methods": [{"name": {"file": str(HERE / "competitor.py")}, "shar": 1}]}, "shar"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        config(HERE, **changes)


def test_a_file_that_does_not_import(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(InputError, match=r"broken.py cannot be imported \(ModuleNotFoundError: No module named"):
        config(HERE, model={"family": {"file": str(tmp_path / "broken.py")}})


def test_the_path_of_a_plug_in_is_seen_from_the_config_that_writes_it(tmp_path, monkeypatch):
    ground, top = tmp_path / "shared", tmp_path / "mine"
    for folder, kind in ((ground, "family"), (ground, "score"), (top, "competitor"), (tmp_path, "source")):
        folder.mkdir(exist_ok=True)
        shutil.copy(HERE / f"{kind}.py", folder)
    (ground / "ground.yaml").write_text(
        "name: own\nmodel: {family: {file: family.py}, bias: false}\n"
        "data: {source: {file: source.py}, forget: {classes: [b]}}\n"
        "base: {train: {epochs: 1}}\npool: {grid: {lr: [0.01]}}\nmethods: [consensus]\n"
        "evaluation: {scores: [{file: ../shared/score.py}]}\n"
    )
    (top / "top.yaml").write_text("extends: ../shared/ground.yaml\nmethods: [{name: {file: competitor.py}}]\n")
    (tmp_path / "competitor.py").write_text("")  # in the current folder, and not the one that is meant
    monkeypatch.chdir(tmp_path)
    found = load_config(Path("mine/top.yaml"))
    assert found.model.family == "shared/family.py" and found.evaluation.scores == ["shared/score.py"]
    assert found.methods[0].name == "mine/competitor.py"
    assert found.data.source == "source.py"  # none beside the config: that of the current folder, as of data
    monkeypatch.chdir(top)
    with pytest.raises(InputError, match=r"shared/source\.py: no such file; give the path of a plug-in"):
        load_config(Path("top.yaml"))
    shutil.copy(HERE / "source.py", ground)
    found = load_config(Path("top.yaml"))
    assert (found.data.source, found.methods[0].name) == ("../shared/source.py", "competitor.py")
    assert (
        load_config(top / "top.yaml", ["model.family={file: ../shared/family.py}"]).methods[0].name == "competitor.py"
    )
