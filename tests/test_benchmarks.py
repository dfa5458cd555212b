"""The benchmarks run: on small files, once, against the floor and the published loop."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def merge(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("merge", "merge_pools"):
        sys.modules.pop(name, None)
    import merge

    yield merge
    for name in ("merge", "merge_pools"):
        sys.modules.pop(name, None)


@pytest.mark.heavy
def test_merge_measures_and_compares(merge, tmp_path, monkeypatch):
    case = merge.Case("clip", "small", 3, {"a": (50, 40), "b": (7,)}, torch_files=True)
    monkeypatch.setattr(merge, "CASES", {"clip": case})
    monkeypatch.setattr(merge, "RESULTS", tmp_path)
    result = merge.measure(case, tmp_path, 1, 1, None)
    rows = {row["name"]: row for row in result["rows"]}
    ours = ["consensus", "hashed", "command", "command-hashed", "inspect"]
    assert list(rows) == ["floor", *ours, "blake3", "uniform", "ties", "from-pt", "published-loop"]
    assert all(len(row["runs"]) == 1 and row["runs"][0]["seconds"] > 0 for row in rows.values())
    assert rows["from-pt"]["differs"] == 0.0 and rows["published-loop"]["differs"] < 1e-6
    assert not list((tmp_path / "clip").glob("result*"))
    (tmp_path / "merge.md").write_text("before\n<!-- tables -->\nold\n<!-- end -->\nafter\n")
    for _ in range(2):  # a second time replaces what the first wrote
        merge.write({"machine": "here", "cases": [result]})
    page = (tmp_path / "merge.md").read_text()
    assert page.startswith("before\n") and page.endswith("<!-- end -->\nafter\n") and "old" not in page
    assert page.count("| the published loop (`.pt`) |") == 1 and "× (consensus)" in page


def test_a_pool_has_the_size_of_a_clip_model(merge):
    assert [case.parameters // 10**6 for case in merge.CASES.values()] == [113, 113, 30, 3, 113, 30, 30]
    assert merge.CASES["bf16"].dtype == torch.bfloat16 and merge.CASES["clip-30"].members == 30


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop("training", None)
    import training

    yield training
    sys.modules.pop("training", None)


@pytest.mark.heavy
def test_training_measures_and_writes(training, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- end -->\nafter\n")
    words = ["--device", "cpu", "--repeats", "2", "--images", "300", "--step-images", "256", "--workers", "0"]
    training.main([*words, "--write", str(page)])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n") and "old" not in text
    assert text.count("| DataLoader + PIL, 0 workers") == 2 and text.count("| **negmerge**") == 3
    assert "n = 2." in text and "threads, device cpu" in text
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no lines <!-- tables -->"):
        training.write(page, "")


def test_both_sides_of_the_training_benchmark_make_the_same_batches(training):
    from negmerge.tasks.image_classification.classifier import Classifier

    images = torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8)
    plain = training.Pictures(images, torch.arange(9), augmented=False)
    ours = Classifier("cifar-resnet", {}, 10, (3, 32, 32)).prepare(images)
    assert torch.equal(torch.stack([plain[i][0] for i in range(9)]), ours) and plain[4][1] == 4
    pictures = training.Pictures(images, torch.arange(9))
    drawn = torch.stack([pictures[0][0] for _ in range(20)])
    assert drawn.shape == (20, 3, 32, 32) and len(drawn.unique(dim=0)) > 10


def test_pools_of_another_base_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import other_base

    pools = other_base.Pools(tmp_path)
    states = [{"w": torch.randn(30, 20, generator=torch.Generator().manual_seed(seed))} for seed in (0, 1)]
    members = [{"w": states[0]["w"] + 0.01 * (1 + torch.rand(30, 20))} for _ in range(2)]
    pools.add("honest/small/one", states[0], members)
    pools.add("other/small, another seed/one", states[1], members)
    rows = {(side, pool): [other_base.row_of(found)] for side, pool, _, found in other_base.measured(tmp_path)}
    assert [row[0]["warned"] for row in rows.values()] == [0.0, 1.0]
    lines = other_base.table(rows).splitlines()
    assert lines[2].startswith("| small | 1 | 1.00 … 1.00 |") and lines[3].startswith(
        "| **small, another seed** | 1 | "
    )
    assert lines[2].endswith("| 0 |") and lines[3].endswith("| 1 |")
