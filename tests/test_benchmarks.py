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


def test_merge_measures_and_compares(merge, tmp_path, monkeypatch):
    case = merge.Case("clip", "small", 3, {"a": (50, 40), "b": (7,)}, torch_files=True)
    monkeypatch.setattr(merge, "CASES", {"clip": case})
    monkeypatch.setattr(merge, "RESULTS", tmp_path)
    result = merge.measure(case, tmp_path, 1, 1, None)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["floor", "consensus", "command", "hashed", "uniform", "ties", "from-pt", "published-loop"]
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
    assert [case.parameters // 10**6 for case in merge.CASES.values()] == [113, 113, 30, 113]
    assert merge.CASES["bf16"].dtype == torch.bfloat16 and merge.CASES["clip-30"].members == 30
