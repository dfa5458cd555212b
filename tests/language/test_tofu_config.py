"""The config of a real language model, every line of it, on a tiny one: an epoch, one value a search."""

from pathlib import Path

import pytest
from test_tofu import write
from tiny_language import save

from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.pipeline import run

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "tofu-smollm2.yaml"


@pytest.mark.heavy(60)
def test_the_config_runs_scaled_down(tmp_path, monkeypatch, capsys):
    raw = load_config(CONFIG).resolved()
    save(tmp_path / "model", chat=True, longest=256)
    raw["model"]["path"], raw["data"]["path"] = str(tmp_path / "model"), str(write(tmp_path / "tofu"))
    raw["workers"], raw["threads"], raw["device"] = 1, 1, "cpu"
    raw["base"]["train"]["epochs"] = 1
    raw["pool"]["grid"] = {"lr": [3e-4, 1e-3], "epochs": [1]}
    raw["methods"] = [{k: v for k, v in method.items() if v is not None} for method in raw["methods"]]
    for method in raw["methods"]:
        if isinstance(method.get("lr"), list):
            method |= {"lr": method["lr"][:1], "epochs": 1}
    raw["selection"] |= {"search": "grid", "step": 0.5}
    raw["evaluation"]["most"] = 1000
    results = run(check_config(raw), tmp_path / "run")
    rows = ("best-single", "uniform", "ties", "consensus", "random-mask", "msa")
    trained = ("grad-diff", "npo", "simnpo", "rmu")
    assert set(results["methods"]) == {*rows, *(f"{row} projected" for row in rows[1:]), *trained}
    base = results["base"]
    assert 0 <= base["forget_quality"] <= 1 and base["privleak"] is not None and base["forget_truth"] is not None
    assert base["retain_truth"] is None  # no retain row has other answers here
    assert len(results["said"]["rows"]) == 6 and results["verdict"]["word"]
    own, rounded = results["evidence"]["tests"]
    assert "have a mean probability of" in own["text"] and "have a mean probability of" in rounded["text"]
    judged = results["methods"][results["evidence"]["method"]]
    assert own["counted"]["model"] == pytest.approx(judged["forget"], abs=0.5)
    assert results["task"]["rows"]["validation"] == 20 and results["task"]["rows"]["test"] == 40
    assert results["selection"]["match"] == ["forget"]

    monkeypatch.syspath_prepend(CONFIG.parents[1] / "benchmarks")
    from language_held_out import main

    main([str(tmp_path / "run"), "--write", str(tmp_path / "page.md")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "### tofu-smollm2: 120 read and 60 not read by the projection"
    cells = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert set(cells) == {"row", "---", "base", "Retrain", *results["methods"]}
    read, rest = (float(one) for one in cells["base"].strip("| ").split(" | ")[1:3])
    assert (120 * read + 60 * rest) / 180 == pytest.approx(base["retain"], abs=0.1)

    import language_rounded

    language_rounded.main([str(tmp_path / "run")])
    whole = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| base"))
    unrounded, int8 = (float(one) for one in whole.strip("| ").split(" | ")[1:3])
    assert unrounded == pytest.approx(base["forget"], abs=0.06) and int8 == pytest.approx(unrounded, abs=2.0)

    import language_relearned

    words = [str(tmp_path / "run"), "--rows", "uniform projected", "--draws", "2", "--lr", "1e-2"]
    language_relearned.main([*words, "--write", str(tmp_path / "relearned.md")])
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert "\n".join(table) in (tmp_path / "relearned.md").read_text()
    cells = {line[0]: line[1:] for line in ([cell.strip() for cell in line.split("|")[1:-1]] for line in table)}
    assert list(cells) == ["model", "---", "base", "uniform projected", "Retrain"]
    before, after = float(cells["base"][0]), float(cells["base"][2].split(" ± ")[0])
    assert before == pytest.approx(base["forget"], abs=0.5)  # 15 of the 20 answers, of which none is known well
    assert after > before  # training on five of them makes the tiny model's others likelier
    with pytest.raises(ValueError, match="has no row unifrom: it has base, "):
        language_relearned.main([str(tmp_path / "run"), "--rows", "unifrom"])
