"""Scores that a config asks for, attacks to model utility and ROUGE, and what a model says by itself."""

import sys

import pytest
import torch
from test_tofu import write as write_tofu
from tiny_language import config_of, facts, save, write

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.measure import Bench
from negmerge.scores.auc import loss_auc
from negmerge.scores.language import forget_quality, harmonic_mean, privleak
from negmerge.scores.plugged import further_scores
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.training.fitting import fit_rows
from negmerge.training.settings import TrainSettings

ASKED = [
    "min-k-auc", "min-k-plus-plus-auc", "zlib-auc", "loss-auc", "reference-auc", "privleak", "forget-quality",
    "model-utility",
]  # fmt: skip


@pytest.fixture
def task(tmp_path):
    save(tmp_path / "model")
    data = DataConfig(
        source="tofu", path=str(write_tofu(tmp_path / "tofu")), authors=[0, 1], unseen=[180, 181],
        forget={"fraction": 0.25},
    )  # fmt: skip
    model = ModelConfig(family="hf", path=str(tmp_path / "model"))
    loaded = preparing.load_data(data, model)
    return preparing.make_task(data, model, Compute(), loaded.tables, loaded.described)


def other_weights(task, path, seed):
    model = task.start(0)
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    write_state_dict(path, task.trained(model))
    return path


def test_scores_that_are_asked_for_are_those_of_the_columns(task, tmp_path):
    parts = {
        "forget": torch.arange(5),
        "retain": torch.arange(20),
        "test": torch.arange(20, 40),
        **task.further_parts(),
    }
    parts |= {part: torch.arange(0) for part in ("test_forget", "validation", "validation_forget")}
    model, reference = (other_weights(task, tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    asked = further_scores(ASKED, task.scores, task.COLUMNS, parts=task.further_parts(), reference=True)
    found = Bench(task, parts, [], 0, "cpu", None, asked, reference).full_scores(model)
    names = ["min_k", "min_k_plus_plus", "zlib", "loss", "truth_ratio", "options", "confidence"]
    seen, other = (task.observe(task.open(path), parts, dict.fromkeys(parts, names)) for path in (model, reference))
    for name in ("min_k", "min_k_plus_plus", "zlib", "loss"):
        auc = loss_auc(seen["forget"][name], seen["test"][name])
        assert found[f"membership_{name}_auc"] == pytest.approx(auc, abs=1e-9)
        assert seen["forget"][name].std() > 0
    less = {part: seen[part]["loss"] - other[part]["loss"] for part in ("forget", "test")}
    assert found["membership_reference_auc"] == loss_auc(less["forget"], less["test"]) != 50.0
    leak = privleak(*(loss_auc(one["forget"]["min_k"], one["test"]["min_k"]) for one in (seen, other)))
    assert found["privleak"] == pytest.approx(leak, abs=1e-9)
    quality = forget_quality(seen["forget"]["truth_ratio"], other["forget"]["truth_ratio"])
    assert found["forget_quality"] == quality
    ratios = [seen[part]["truth_ratio"] for part in ("retain", "real_authors", "world_facts")]
    six = [float((1 - r[~r.isnan()]).clamp(min=0).mean()) for r in ratios]
    six += [float(seen["retain"]["confidence"].mean())]
    six += [float(seen[part]["options"].mean()) for part in ("real_authors", "world_facts")]
    assert found["model_utility"] == pytest.approx(100 * harmonic_mean(six), abs=1e-6)
    with pytest.raises(InputError, match=r"privleak compares with Retrain; give reference"):
        further_scores(["privleak"], task.scores, task.COLUMNS)
    with pytest.raises(InputError, match="model-utility needs the part 'real_authors', which there is not"):
        further_scores(["model-utility"], task.scores, task.COLUMNS)


def test_a_model_says_by_itself_what_it_has_learnt(tmp_path):
    save(tmp_path / "model", pad=False)
    path = write(tmp_path / "rows.jsonl", facts(12))
    data = DataConfig(source="jsonl", path=str(path), forget={"fraction": 0.2})
    config = ModelConfig(family="hf", path=str(tmp_path / "model"), template="{prompt} ")
    loaded = preparing.load_data(data, config)
    task = preparing.make_task(data, config, Compute(), loaded.tables, loaded.described)
    model, rows = task.start(0), torch.arange(6)
    fit_rows(task, model, rows, TrainSettings(lr=6e-3, epochs=60, batch_size=6), seed=0)
    extraction = task.observe(model, {"a": rows}, {"a": ["extraction", "correct"]})["a"]
    assert extraction["correct"].all()
    together, alone = task.answers(model, rows), [task.answers(model, row[None])[0] for row in rows]
    assert together == alone and all(said == right for _, right, said in together)
    assert [prompt for prompt, _, _ in together] == [task.reader.sequences.text(row)[0] for row in range(6)]
    pytest.importorskip("rouge_score")
    seen = task.observe(model, {"a": rows}, {"a": ["rouge", "rouge_f1"]})["a"]
    assert seen["rouge"].tolist() == seen["rouge_f1"].tolist() == [1.0] * 6


def test_rouge_counts_the_longest_common_subsequence():
    pytest.importorskip("rouge_score")
    from negmerge.scores.language import rouge_l_recall

    assert rouge_l_recall("the quick dog", "the quick brown fox") == 0.5
    assert rouge_l_recall("", "the quick brown fox") == 0.0


def test_f1_counts_what_is_said_too_many():
    pytest.importorskip("rouge_score")
    from negmerge.scores.language import rouge_l_f1

    assert rouge_l_f1("the quick dog ran on", "the quick brown fox") == pytest.approx(2 * 0.4 * 0.5 / 0.9)
    assert rouge_l_f1("foxes", "fox") == 0.0  # not stemmed, as MUSE has it


def test_model_utility_of_six_and_of_nine_numbers():
    from negmerge.scores.further import model_utility, model_utility_rouge
    from negmerge.scores.score import Draw

    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    part = {"confidence": shares, "options": shares, "truth_ratio": 1 - shares, "rouge": shares / 2}
    observed = {"model": dict.fromkeys(("retain", "real_authors", "world_facts"), part)}
    assert model_utility.SCORE.compute(observed, Draw(0)) == pytest.approx(50.0)
    assert model_utility_rouge.SCORE.compute(observed, Draw(0)) == pytest.approx(9 / (6 / 50 + 3 / 25))
    part["truth_ratio"] = shares * float("nan")
    assert model_utility_rouge.SCORE.compute(observed, Draw(0)) is None


def test_a_next_question_of_its_own_is_no_part_of_an_answer():
    from negmerge.tasks.causal_lm.generating import cut_at_marks

    assert cut_at_marks("Ann Lee.\n\nMore") == cut_at_marks("Ann Lee.\nQuestion: Who?") == "Ann Lee."
    assert cut_at_marks("Ann\nLee") == "Ann\nLee"


@pytest.mark.parametrize("name", ["forget-rouge", "verbatim-f1", "model-utility-rouge"])
def test_a_score_whose_package_is_missing_is_refused_with_the_config(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(InputError, match=rf"{name} needs the package rouge-score; pip install 'negmerge\[rouge\]'"):
        check_config(config_of(tmp_path, evaluation={"scores": [name]}))
