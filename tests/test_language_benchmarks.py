"""The table of language runs, on results made by hand."""

import json
from pathlib import Path

import pytest

BASE = {"alpha": 0.0, "forget": 98.0, "retain": 96.0, "retain_extraction": 90.0, "forget_extraction": 95.0}
DEEP = {"alpha": 2.0, "forget": 2.0, "retain": 80.0, "retain_extraction": 50.0, "forget_extraction": 5.0}


@pytest.fixture
def made(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import language_table

    return language_table


def results(**more):
    half = {**DEEP, "retain_extraction": 70.0}
    tried = [{"settings": {"lr": 1e-5}, "scores": {**DEEP, "forget": 40.0}}, {"settings": {"lr": 3e-5}, "scores": None}]
    methods = {
        "uniform": {"curve": [DEEP, BASE]},
        "consensus": {"curve": [BASE, half]},
        "ties": {"curve": [BASE, {**BASE, "alpha": 1.0, "forget": 60.0}]},
        "npo": {"search": {"candidates": tried}},
    }
    return {"name": "facts", "task": {"text": "forget"}, "base": BASE, "methods": methods, **more}


def test_rows_are_read_at_the_forgetting_of_retrain(made, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results(reference={**BASE, "forget": 26.0})))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- tables -->\n<!-- end -->\nb\n")
    made.main([str(tmp_path / "run"), "--write", str(page)])
    shown = page.read_text()
    assert capsys.readouterr().out.strip() in shown and shown.startswith("a\n") and shown.endswith("b\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("| ")]
    rows = {(row[0], row[1]): row[2:] for row in cells}
    # forget falls from 98 to 2 as α goes from 0 to 2: it is 26 at three quarters of the way
    assert rows["uniform", "α = 1.50"] == ["26.0", "84.0", "60.0", "0.67", "27.5"]
    assert rows["consensus", "α = 1.50"][2] == "75.0" and "Consensus keeps +15.0 points" in shown
    assert rows["ties", "not reached (least 60.0)"] == [""] * 5
    assert rows["npo", "lr 1e-05"][0] == "40.0" and rows["npo", "lr 3e-05"][0] == "failed"
    models = shown.partition("The models that were written")[2]
    assert (
        "| base | 98.0 | 96.0 | 90.0 | 1.00 | 95.0 |" in models
        and "| Retrain | 26.0 | 96.0 | 90.0 | 1.00 | 95.0 |" in models
    )


def test_a_run_that_goes_on_is_read_from_its_rows(made, tmp_path, capsys):
    folder = tmp_path / "run" / "methods" / "uniform"
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_text(json.dumps({"curve": [BASE, DEEP]}))
    made.main([str(tmp_path / "run")])
    assert "give --target" in capsys.readouterr().out
    made.main([str(tmp_path / "run"), "--target", "26"])
    out = capsys.readouterr().out
    assert "### run (not finished)" in out and "| uniform | α = 1.50 | 26.0 | 84.0 | 60.0 | 0.67 | 27.5 |" in out


@pytest.mark.heavy(40)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about a name that peft still uses
def test_adapters_merged_in_one_pass_are_what_peft_makes_of_them(made, tmp_path, capsys):
    pytest.importorskip("peft")
    import merge_adapters

    arguments = [str(tmp_path), "--size", "tiny", "--adapters", "3", "--threads", "1", "--repeats", "1"]
    merge_adapters.main([*arguments, "--write", str(tmp_path / "page.md")])
    out = capsys.readouterr().out
    assert "| negmerge |" in out and "| peft |" in out and out.strip() in (tmp_path / "page.md").read_text()
    apart = float(out.split("at most ")[1].split(" spacings")[0])
    assert 0 < apart <= 2.0  # bfloat16 once against after every adapter


def test_the_time_of_scores_is_told(made, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent / "language")
    import language_scores
    from test_tofu import write
    from tiny_language import save

    save(tmp_path / "model")
    write(tmp_path / "tofu")
    words = [str(tmp_path / "model"), str(tmp_path / "tofu"), "--rows", "20", "--threads", "1", "--max-length", "64"]
    language_scores.main([*words, "--precision", "float32"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[1] for line in lines[2:]] == ["20", "32"]  # two of these rows have six other answers
    assert all(float(line[3]) > 0 and float(line[4].rstrip(" |")) > 0 for line in lines[2:])
