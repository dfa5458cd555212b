"""Whole runs with the retain projection: rows, results, resumption, the moments command, `unlearn`."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import negmerge
from equal_forgetting import retain_loss
from negmerge import unlearn
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.exporting.row import shipped_row
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.warnings import statistics_warnings
from negmerge.projection import Moments

DEMO = Path(negmerge.__file__).parent / "cli" / "demo.yaml"
TINY = {
    "name": "tiny",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn"},
    "data": {"source": "digits", "forget": {"classes": ["3"]}, "validation": {"fraction": 0.2}},
    "base": {"train": {"epochs": 12, "lr": 0.003, "batch_size": 64, "schedule": "one-cycle"}},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3], "epochs": [4, 8]}},
    "projection": {"strength": [1, 10, 100], "samples": 300},
    "methods": ["consensus"],
    "selection": {"step": 0.25, "max_alpha": 4},
    "evaluation": {"membership": []},
}
FINE = {"name": "fine-tune", "lr": [0.001], "epochs": [1]}


def config(**changes):
    return check_config({**yaml.safe_load(yaml.safe_dump(TINY)), **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "tiny"
    events = []
    results = run(config(methods=["consensus", "best-single", FINE]), place, on_event=events.append)
    return place, results, events


def test_every_merge_has_a_row_with_and_one_without(finished):
    _, results, _ = finished
    assert list(results["methods"]) == [
        "consensus", "consensus projected", "best-single", "best-single projected", "fine-tune"
    ]  # fmt: skip
    plain, projected = results["methods"]["consensus"], results["methods"]["consensus projected"]
    assert plain["needs"] == ["pool", "forget"]
    assert "projection" not in plain
    assert projected["needs"] == ["pool", "forget", "retain"]
    done = projected["projection"]
    assert done["rows"]["retain"] == {"rows": 300, "about": "retain images"}
    assert [one["strength"] for one in done["strengths"]] == [1.0, 10.0, 100.0]
    assert done["strength"] in (1.0, 10.0, 100.0)
    assert all(layer["after"] < layer["before"] for layer in done["layers"])
    assert projected["alpha"] == next(s["alpha"] for s in done["strengths"] if s["strength"] == done["strength"])
    assert {"moments", "projection", "selection"} <= set(projected["seconds_parts"])
    single = results["methods"]["best-single projected"]
    assert single["projection"]["strength"] in (1.0, 10.0, 100.0)
    assert set(single["seconds_parts"]) == {"pool", "moments", "merge", "projection", "selection"}


def test_strengths_share_the_moments_and_no_point_is_evaluated_twice(finished):
    place, _, events = finished
    assert [event["stage"] for event in events if event["event"] == "stage-started"].count("moments") == 1
    seen = [event for event in events if event["event"] == "evaluated" and event["method"] == "consensus projected"]
    curves = [
        json.loads((place / f"private/methods/consensus projected/merged.strength-{strength}.curve.json").read_text())
        for strength in (1, 10, 100)
    ]
    assert len(seen) == sum(map(len, curves)) > 6


def test_the_same_run_again_reads_everything(finished):
    place, results, _ = finished
    again = []
    (place / "results.json").unlink()
    assert run(config(methods=["consensus", "best-single", FINE]), place, on_event=again.append) == results
    assert not any(event.get("stage") == "moments" or event["event"] == "evaluated" for event in again)
    (file,) = (place / "private" / "moments").glob("*.safetensors")
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_page_says_what_the_projection_did(finished):
    place, _, _ = finished
    page = (place / "report.html").read_text()
    assert "What the projection did" in page
    assert "300 retain images" in page


def test_at_equal_forgetting_it_adds_less_than_half_as_much_to_the_retain_loss(finished):
    place, _, _ = finished
    private, base = place / "private" / "methods", place / "base" / "model.safetensors"
    material = prepare(RunDir(place), config(methods=["consensus", "best-single", FINE]))

    def at_forgetting(vector):
        return retain_loss(material.task, material.parts, base, private / vector, known=0.02)

    plain, start = at_forgetting("consensus/merged.safetensors")
    projected, _ = at_forgetting("consensus projected/merged.strength-10.safetensors")
    assert plain > start
    assert projected - start < 0.5 * (plain - start)


@pytest.mark.heavy(20)
def test_the_demos_projected_consensus_has_less_than_half_of_the_plain_ones_retain_loss(tmp_path):
    changes = ["methods=[consensus]", "evidence={}", "evaluation.membership=[]", "workers=1", "reference=none"]
    made = load_config(DEMO, changes)
    place = tmp_path / "run"
    run(made, place)
    material, private = prepare(RunDir(place), made), place / "private" / "methods"

    def at_forgetting(vector):
        start = place / "base" / "model.safetensors"
        return retain_loss(material.task, material.parts, start, private / vector, known=0.0)[0]

    plain = at_forgetting("consensus/merged.safetensors")
    assert at_forgetting("consensus projected/merged.strength-10.safetensors") < 0.5 * plain


@pytest.mark.heavy(5)
def test_rows_come_from_a_file_and_never_from_the_request(tmp_path, finished):
    place, _, _ = finished
    split = json.loads((place / "split.json").read_text())
    retain, forget = (split[key] for key in ("retain", "forget"))
    file = tmp_path / "rows.txt"
    file.write_text("\n".join(map(str, retain[:50])))
    method = {"name": "consensus", "projection": {"rows": str(file), "strength": 10}}
    results = run(config(methods=[method], projection="none"), tmp_path / "run")
    row = results["methods"]["consensus"]
    assert row["needs"] == ["pool", "forget", "other rows"]
    assert row["projection"]["rows"]["retain"] == {"rows": 50, "about": "images listed in rows.txt"}
    file.write_text("\n".join(map(str, [*retain[:50], *forget[:3]])))
    with pytest.raises(InputError, match="holds 3 rows that are to be forgotten"):
        run(config(methods=[method], projection="none"), tmp_path / "other")


def test_a_method_speaks_for_itself_and_a_resolved_config_says_the_same():
    made = config(methods=["consensus", {"name": "uniform", "projection": "none"}, FINE])
    assert [method.row for method in made.methods] == ["consensus", "consensus projected", "uniform", "fine-tune"]
    assert check_config(made.resolved()) == made
    with pytest.raises(InputError, match="give different numbers above 0"):
        config(projection={"strength": [0]})
    with pytest.raises(InputError, match=r"write none, or \{rows: retain"):
        config(projection="all")
    with pytest.raises(InputError, match="method fine-tune does not merge: leave out projection"):
        config(methods=[{**FINE, "projection": {}}])


@pytest.mark.heavy(4)
def test_the_moments_command_writes_what_merge_projects_by(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY))
    out = tmp_path / "moments.safetensors"
    words = ["moments", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run"), "-o", str(out)]

    def call(*more):
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        return stop.value.code, capsys.readouterr()

    code, printed = call("--json")
    assert code == 0
    facts = json.loads(printed.out)
    assert facts["retain"] == {"rows": 300, "about": "retain images"}
    assert out.stat().st_mode & 0o777 == 0o600
    with Moments(out) as moments:
        assert len(moments.layers) == len(facts["layers"])
    code, printed = call()
    assert code == 2
    assert "exists; give another OUT, or --overwrite" in printed.err
    other = json.loads(call("--overwrite", "--json", "--set", "projection.rows=validation")[1].out)
    assert other["retain"]["about"] == "validation images" and other["retain"]["rows"] > 200
    assert call("--overwrite")[0] == 0
    # A run there goes on with what the command made.
    events = []
    run(load_config(tmp_path / "c.yaml"), tmp_path / "run", on_event=events.append)
    assert not any(event.get("stage") == "moments" or event.get("name") == "base" for event in events)


class Unlabelled(Dataset):
    """Inputs without labels."""

    def __init__(self, inputs):
        self.inputs = inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return (self.inputs[i],)


@pytest.fixture(scope="module")
def trained():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=g) + 3 * nn.functional.one_hot(y, 6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), TensorDataset(x[y == 0], y[y == 0]), TensorDataset(x[y != 0], y[y != 0])


POOL = {"train": {"batch_size": 16}, "grid": {"lr": [3e-3, 1e-2], "epochs": [4, 8]}}


def test_unlearn_returns_the_projected_model_and_shows_both(trained):
    model, forget, retain = trained
    done = unlearn(model, forget, retain, pool=POOL, projection={"strength": 10})
    assert done.method == "consensus projected"
    assert list(done.results["methods"]) == ["consensus", "consensus projected"]
    assert done.results["methods"]["consensus projected"]["needs"] == ["pool", "forget", "retain"]
    rows = Unlabelled(retain.tensors[0])
    other = unlearn(model, forget, retain, pool=POOL, projection={"rows": rows, "strength": 10, "samples": 1000})
    row = other.results["methods"]["consensus projected"]
    assert row["needs"] == ["pool", "forget", "other rows"]
    assert row["projection"]["rows"]["retain"]["rows"] == 200
    # All rows of retain, whether by name or as a data set, give the same vector.
    same = unlearn(model, forget, retain, pool=POOL, projection={"strength": 10, "samples": 1000})
    assert same.alpha == other.alpha
    for name, value in same.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name])


def test_unlearn_says_which_rows_are_missing(trained):
    model, forget, retain = trained
    with pytest.raises(InputError, match="projection: rows: validation: give that data set"):
        unlearn(model, forget, retain, projection={"rows": "validation"})
    with pytest.raises(InputError, match=r"unlearn: projection\.strength"):
        unlearn(model, forget, retain, projection={"strength": [-1]})
    with pytest.raises(InputError, match="the method fine-tune does not merge; leave projection out"):
        unlearn(model, forget, retain, method="fine-tune", projection={})


def test_moved_statistics_are_a_warning_where_keeping_the_bases_cost_something(finished):
    _, results, _ = finished
    moved = results["statistics_moved"]
    assert list(moved) == [member["name"] for member in results["pool"]["members"]]
    assert min(moved.values()) > 0.02
    assert not any(one["name"] == "moved-statistics" for one in results["warnings"])  # there is a projected row
    row, base = {"buffers": "keep", "retain": 80.0}, {"retain": 90.0}
    (found,) = statistics_warnings({"mean": row, "other": {**row, "retain": 85.0}}, base, moved)
    assert (found["name"], found["method"]) == ("moved-statistics", "pool")
    assert "lost up to 11 % of its value (mean)" in found["text"]
    assert found["advice"] == "project the vectors (projection: {rows: retain})"
    for changed in ({"buffers": "negate"}, {"retain": 89.9}):
        assert not statistics_warnings({"mean": {**row, **changed}}, base, moved)
    assert not statistics_warnings({"mean": row}, base, {"a": 0.0})
    assert not statistics_warnings({"mean": row}, base, {})


class Facts(Dataset):
    """Rows of token numbers: a relation and a name of three tokens, then an answer of four, the only labels."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i], "labels": torch.cat([torch.full((4,), -100), self.rows[i, 4:]])}


def facts():
    """Four facts on each of 25 names."""
    draw = torch.Generator().manual_seed(0)
    names, answers = torch.randint(10, 40, (25, 3), generator=draw), torch.randint(10, 60, (25, 4, 4), generator=draw)
    return torch.stack(
        [torch.cat([torch.tensor([2 + r]), names[n], answers[n, r]]) for n in range(25) for r in range(4)]
    )


@pytest.mark.heavy(8)
@pytest.mark.filterwarnings("ignore")
def test_a_pool_of_adapters_of_a_language_model_forgets_more_where_it_is_projected():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    rows = facts()
    forget, retain = rows[:20], rows[20:]
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 16}
    whole = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **whole, **tokens))
    optimizer, known = torch.optim.AdamW(model.parameters(), 5e-3), Facts(rows)
    labels = torch.stack([known[i]["labels"] for i in range(len(rows))])
    for _ in range(200):
        optimizer.zero_grad()
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()

    def said_right(module):
        found = {}
        for name, part in (("forget", forget), ("retain", retain)):
            with torch.no_grad():
                said = module(input_ids=part).logits[:, 3:-1].argmax(-1)
            found[name] = 100 * float((said == part[:, 4:]).float().mean())
        return found

    done = unlearn(
        model.eval(),
        Facts(forget),
        Facts(retain),
        evaluate=said_right,
        pool={"adapter": {"r": 8}, "train": {"batch_size": 10}, "grid": {"lr": [1e-3, 3e-3], "epochs": [5, 10]}},
        selection={"floor": 0.8},
        projection={"strength": [1, 10]},
    )
    plain, projected = (done.results["methods"][name] for name in ("consensus", "consensus projected"))
    layers = projected["projection"]["layers"]
    assert len(layers) >= 8 and all(layer["after"] < layer["before"] for layer in layers)
    base = done.results["base"]
    assert base["forget"] > 95 and projected["retain"] >= 0.8 * base["retain"]
    assert projected["forget"] < plain["forget"] - 10
    assert done.method == "consensus projected" and said_right(done.model)["forget"] == projected["forget"]


def test_the_better_of_two_rows_is_handed_over_and_the_projected_one_of_equals():
    methods = [
        {"name": "uniform", "label": "", "projection": "none"},
        {"name": "uniform", "label": "uniform projected", "projection": {"rows": "retain"}},
        {"name": "consensus", "label": "", "projection": "none"},
    ]

    def shipped(plain, projected, **more):
        rows = {"uniform": plain, "uniform projected": projected, "consensus": (0.0, 99.0)}
        found = {
            name: {"alpha": 1.0, "curve": [{"alpha": 0.0, "forget": 90.0, "retain": 99.0}, point(*scores)]}
            for name, scores in rows.items()
        }
        return shipped_row({"methods": methods}, {"selection": {"objective": "retain-floor"}, "methods": found, **more})

    def point(forget, retain):
        return {"alpha": 1.0, "forget": forget, "retain": retain}

    assert shipped((1.0, 97.0), (1.0, 97.0)) == "uniform projected"
    assert shipped((0.0, 95.0), (1.0, 97.0)) == "uniform"
    assert shipped((1.0, 95.0), (1.0, 97.0)) == "uniform projected"
    assert shipped((0.0, 95.0), (1.0, 97.0), evidence={"method": "uniform projected"}) == "uniform projected"
    assert shipped_row({"methods": methods[2:]}, {"methods": {}}) == "consensus"


def test_only_a_projected_row_keeps_statistics_that_are_negated_elsewhere():
    made = config(buffers="negate", methods=["consensus", {"name": "uniform", "projection": {}}])
    assert {method.row: made.buffers_of(method) for method in made.methods} == {
        "consensus": "negate", "consensus projected": "keep", "uniform": "keep"
    }  # fmt: skip
    anew = {"recalibrate": "forget", "rows": 50}
    made = config(buffers=anew, methods=["consensus"])
    assert all(made.buffers_of(method) == made.buffers for method in made.methods)
