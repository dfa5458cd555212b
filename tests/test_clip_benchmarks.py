"""The benchmark of choosing α, and the page of results, on a tiny CLIP and a few digits."""

import json
import sys
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from clip_example import save_tiny_clip
from negmerge import registry

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A CLIP and digits in the forms of MNIST and CIFAR-10."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("NEGMERGE_CACHE", str(tmp_path / "cache"))
    save_tiny_clip(tmp_path / "clip")
    module = registry.load("sources", "digits")
    digits = module.load(module.Settings(image_size=16))
    words = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    for name, classes in (("mnist", [str(d) for d in range(10)]), ("cifar10", words)):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
        (tmp_path / name).mkdir()
        for part, table in (("train", digits.train), ("test", digits.test)):
            pictures = [Image.fromarray(image[0].numpy()).convert("RGB") for image in table.images]
            rows = {"image": pictures, "label": table.labels.tolist()}
            datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / name / f"{part}.parquet")
    yield tmp_path
    for name in ("clip_selection", "clip_table"):
        sys.modules.pop(name, None)


@pytest.mark.heavy(3)
def test_both_choose_the_same_alpha(here, capsys):
    import clip_selection

    threads = torch.get_num_threads()
    places = [f"--{name}={here / name}" for name in ("clip", "mnist", "cifar10")]
    result = clip_selection.main([*places, "--rows=700", "--rounds=1", "--threads=1"])
    assert torch.get_num_threads() == threads
    assert json.loads(capsys.readouterr().out) == result
    assert result["rows"] == {"forget": 70, "retain": 70} and result["points"] <= 21
    assert result["ratio"] == result["seconds"]["plain"] / result["seconds"]["negmerge"] > 1


def results(forget, control, linear=False):
    """What the page reads of a run with two methods."""

    def row(method, left, alpha):
        curve = [{"alpha": 0.0, "forget": 90.0, "retain": 60.0}, {"alpha": alpha, "forget": left + 1, "retain": 58.0}]
        return {"method": method, "test_forget": left, "test": 57.0, "alpha": alpha, "consensus": 0.25, "kept": 1,
                "merged_elements": 4, "curve": curve}  # fmt: skip

    base = {"test_forget": 91.0, "test": 61.0, "validation_forget": 90.0, "validation": 60.0}
    return {
        "task": {"text": f"forget {forget}, keep {control}", "rows": {"test_forget": 10, "test": 20}},
        "model": {"settings": {"linearised": linear}, "parameters": 4},
        "pool": {"members": [1, 2], "consensus": 0.25, "chance": 0.5, "mean_cosine": 0.5},
        "base": base,
        "methods": {"consensus": row("consensus", 20.0, 0.5), "uniform": row("uniform", 10.0 if linear else 30.0, 1.0)},
    }


def test_the_page_says_where_the_consensus_stands(tmp_path, here):
    import clip_table

    for name, made in (("a", results("a", "b")), ("b", results("b", "a")), ("l", results("a", "b", True))):
        singles = tmp_path / "runs" / name / "private" / "shared" / "keep" / "single-members"
        singles.mkdir(parents=True)
        (tmp_path / "runs" / name / "results.json").write_text(json.dumps(made))
        for member, left in (("000", 40.0), ("001", 70.0)):
            curve = {"0": {"forget": 90.0, "retain": 60.0}, "0.5": {"forget": left, "retain": 57.0},
                     "1": {"forget": 1.0, "retain": 56.9}}  # fmt: skip
            (singles / f"{member}.curve.json").write_text(json.dumps(curve))
    training = tmp_path / "training.json"
    facts = {"zero_shot": {"mnist": 98.0}, "rows": {"mnist": 5}, "parameters": 9, "image_tower": 8, "vocabulary": 7,
             "settings": {"epochs": 3}, "seconds": 60.0, "threads": 2}  # fmt: skip
    training.write_text(json.dumps(facts))
    page = clip_table.page([tmp_path / "runs" / name for name in ("a", "b", "l")], training)
    assert "Zero-shot on test: mnist 98.00 %." in page and "25.00 % (1 / 4)" in page
    assert page.count("best single member: 000 | | | 0.50 | | 40.00 | 57.00") == 3
    assert page.count("worst single member: 001 | | | 0.50 | | 70.00 | 57.00") == 3
    assert page.count("Consensus forgets most (methods: 2): 20.00 %") == 2
    assert "it is number 2 of 2 with 20.00 % on the forget set, uniform has 10.00 %" in page
    average = page[page.index("## Average over 2 forget sets") :]
    assert "| before | 91.00 | 61.00 | 0 | |" in average and "| uniform | 30.00 | 57.00 | 1.00 | 25.00 % |" in average


def test_who_breaks_the_floor_on_the_test_split_does_not_win(here):
    import clip_table

    made = results("a", "b", True)
    made["methods"]["uniform"]["test"] = 56.9
    assert clip_table.verdict(made) == (
        "Consensus forgets most (methods: 1): 20.00 % remain on the forget set. More than a point below the floor on "
        "the test split, and not counted: uniform."
    )
