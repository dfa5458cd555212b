"""From a folder and a file of questions to a folder that forgot them; members that are adapters; interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_language import PLAIN, config_of, facts, save, transformers, write

import negmerge
from negmerge.checkpoints import read_state_dict
from negmerge.cli import main
from negmerge.experiment.config import check_config
from negmerge.experiment.exporting.row import shipped_row
from negmerge.parsing import parse_yaml
from negmerge.tasks.causal_lm.language_model import LanguageModel, Settings
from negmerge.training.adapters import open_member

pytestmark = pytest.mark.heavy(60)
ROWS = facts(22)


@pytest.fixture(scope="module")
def known(finished, tmp_path_factory):
    """A folder of transformers with the model that knows the facts, and files of what is to be forgotten and kept."""
    config, _, run = finished
    place = tmp_path_factory.mktemp("known")
    model = LanguageModel(Settings(**config.model.settings))
    model.export(model.open(run / "base" / "model.safetensors"), place / "model")
    (place / "forget.json").write_text(json.dumps([row for row in ROWS if row["author"] == "author 1"]))
    write(place / "retain.jsonl", ROWS)
    return place


def unlearn(known, out, *more):
    main(
        [
            "unlearn", str(known / "model"), "--forget", str(known / "forget.json"), "-o", str(out),
            "--retain", str(known / "retain.jsonl"), "--set", f"model.template='{PLAIN}'", *more,
        ]
    )  # fmt: skip


def probability(folder, rows):
    """Mean over rows of exp(mean log p) of the answers, by transformers alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        prompt = tokenizer(row["question"] + " ")["input_ids"]
        answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logs = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        own = [logs[len(prompt) - 1 + i, token] for i, token in enumerate(answer)]
        found.append(float(torch.stack(own).mean().exp()))
    return 100 * sum(found) / len(found)


def test_one_command_makes_a_folder_that_has_forgotten(known, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        unlearn(known, tmp_path / "run", "--json")
    out, err = capsys.readouterr()
    results = json.loads(out)
    assert ended.value.code in (0, None) and "a causal language model" in err and "6 to forget" in err
    gone = [row for row in ROWS if row["author"] == "author 1"]
    assert results["task"]["text"] == "forget 6 rows of forget.json, keep retain.jsonl"
    config = check_config(parse_yaml((tmp_path / "run" / "config.yaml").read_text())).resolved()
    row = results["methods"][shipped_row(config, results)]
    assert row["forget"] < results["base"]["forget"] - 5
    assert row["forget"] == pytest.approx(probability(results["model_path"], gone), abs=0.05)
    assert results["base"]["forget"] == pytest.approx(probability(known / "model", gone), abs=0.05)
    assert results["pool"]["adapter"]["r"] == 16
    assert (
        "deepest forgetting, to 0.1 % at most, that keeps" in " ".join(err.split())
        and results["selection"]["gone"] == 0.1
    )
    assert "--set evaluation.answers=5 shows" in " ".join(err.split()) and not results.get("said")
    assert "Up to 0.1 % counts as none." in (tmp_path / "run" / "report.html").read_text()

    again = negmerge.run(tmp_path / "run" / "config.yaml", tmp_path / "python")  # the same request in Python
    for name, found in results["methods"].items():
        same = again["methods"][name]
        measured = [key for key, value in found.items() if isinstance(value, float) and "seconds" not in key]
        assert {key: same[key] for key in measured} == {key: found[key] for key in measured} and len(measured) > 5
        assert same["curve"] == found["curve"]


def test_nothing_to_keep_and_strange_columns_are_one_line(known, tmp_path, capsys):
    for arguments, words in (
        (["--forget", str(known / "forget.json")], "nothing says what must be kept; give --retain FILE"),
        (
            ["--forget", str(write(tmp_path / "x.jsonl", [{"a": "b"}])), "--retain", str(known / "retain.jsonl")],
            "which column holds the prompt",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["unlearn", str(known / "model"), "-o", str(tmp_path / "out"), *arguments])
        assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about a name that peft still uses
def test_a_member_is_what_peft_makes_of_its_adapter(known, tmp_path, seed_run):
    peft = pytest.importorskip("peft")
    from negmerge.training.adapters import AdapterSettings
    from negmerge.training.job import TrainingJob, train
    from negmerge.training.settings import TrainSettings

    task = seed_run.material.task
    settings = TrainSettings(lr=1e-2, epochs=2, batch_size=4).model_dump(mode="json")
    rows = tuple(seed_run.material.parts["forget"].tolist())
    start = seed_run.base
    job = TrainingJob("a", tmp_path / "a", task, rows, settings, 0, "cpu", start, adapter=AdapterSettings(r=4))
    train(job)
    ours = open_member(task, start, job.checkpoint).state_dict()
    plain = transformers.AutoModelForCausalLM.from_pretrained(known / "model")
    theirs = peft.PeftModel.from_pretrained(plain, job.checkpoint).merge_and_unload().state_dict()
    before = read_state_dict(start)
    assert set(ours) == set(theirs)
    changed = 0
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)
        changed += name in before and not torch.equal(value, before[name])
    assert changed == 14  # seven linear layers in each of two blocks


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    save(tmp_path / "model")
    write(tmp_path / "facts.jsonl", facts(22))
    write(tmp_path / "unseen.jsonl", facts(8, seed=1))
    quick = {"epochs": 8, "lr": 6e-3, "batch_size": 8}
    methods = ["consensus", {"name": "npo", "lr": 1e-3, "epochs": 3, "batch_size": 4}]
    pool = {"train": {"batch_size": 4}, "grid": {"lr": [1e-3, 2e-3]}, "adapter": {"r": 4}}
    config = config_of(tmp_path, base={"train": quick}, methods=methods, pool=pool)
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "negmerge", "run", str(tmp_path / "config.yaml"), "-q", "-o"]

    def events(place):
        file = place / "events.jsonl"
        return len(file.read_text().splitlines()) if file.exists() else 0

    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    total = events(tmp_path / "whole")
    place = tmp_path / "killed"
    for share in (0.2, 0.5, 0.8):
        process = subprocess.Popen([*command, str(place)], start_new_session=True)
        while process.poll() is None and events(place) < share * total:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(place)], check=True)
    for row in ("consensus", "npo"):
        first, second = (
            read_state_dict(p / "methods" / row / "model.safetensors") for p in (tmp_path / "whole", place)
        )
        assert all(torch.equal(value, second[name]) for name, value in first.items())
    found = [json.loads((p / "results.json").read_text()) for p in (tmp_path / "whole", place)]
    names = [score["name"] for score in found[0]["scores"]]
    for row in ("consensus", "npo"):
        assert [found[0]["methods"][row][n] for n in names] == [found[1]["methods"][row][n] for n in names]
