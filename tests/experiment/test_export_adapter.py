"""Exporting as an adapter: only on a model that never saw what was to be forgotten."""

import pytest
import torch

from negmerge.checkpoints import open_adapter, open_checkpoint, read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.exporting.adapter import write_adapter
from negmerge.experiment.exporting.export import export
from negmerge.experiment.pipeline import run
from negmerge.record.statement import read_statement
from negmerge.record.verifying import verify_folder

NAME = "layers.0.weight"


def low_rank(rank, seed, scale=0.1):
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(60, rank, generator=draw) @ torch.randn(rank, 40, generator=draw)


@pytest.fixture
def made(tmp_path):
    """A clean model, a base that learnt in an adapter of rank 2, and one that forgot by an adapter of rank 2."""
    clean = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    learnt = low_rank(2, 1)
    states = {
        "clean": clean,
        "base": clean + learnt,
        "unlearned": clean + learnt - low_rank(2, 2),
        "shorter": clean + 0.4 * learnt,
        "full": clean + torch.randn(60, 40, generator=torch.Generator().manual_seed(3)),
    }
    for name, weight in states.items():
        write_state_dict(tmp_path / f"{name}.safetensors", {NAME: weight})
    (tmp_path / "out").mkdir()
    return {name: tmp_path / f"{name}.safetensors" for name in states}, states, tmp_path / "out"


def test_the_adapter_on_the_clean_model_is_the_unlearned_one(made):
    files, states, out = made
    assert write_adapter(files["base"], files["unlearned"], files["clean"], 4, out) < 1e-5
    base = open_checkpoint(files["clean"])
    delta = open_adapter(out, out).bind(base).read_delta(NAME, 0, 2400).reshape(60, 40)
    assert torch.allclose(states["clean"] + delta, states["unlearned"], atol=1e-5)
    assert b"safetensors" not in (out / "adapter_model.safetensors").read_bytes()[:2000]  # names of inputs


@pytest.mark.parametrize(
    ("base", "weights", "clean", "rank", "words"),
    [
        (
            "base",
            "unlearned",
            "base",
            4,
            "is the base itself: an adapter on it negates, and is undone by",
        ),
        ("base", "unlearned", "full", 4, r"is not .*full.safetensors with an adapter of rank 4: \d+.\d % of their"),
        ("base", "unlearned", "clean", 3, r"an adapter of rank 3 leaves out \d+.\d % of the change.*raise --rank"),
        ("base", "shorter", "clean", 2, r"would give the base back when it is scaled by 2.5: it is only shorter"),
        ("gone", "unlearned", "clean", 4, "was removed: nothing tells any more whether an adapter may be shipped"),
    ],
)
def test_what_would_be_undone_or_is_another_model_is_refused(made, base, weights, clean, rank, words):
    files, _, out = made
    place = files["clean"].parent
    with pytest.raises(InputError, match=words):
        write_adapter(place / f"{base}.safetensors", files[weights], files[clean], rank, out)


def test_a_model_of_other_tensors_is_named(made, tmp_path):
    files, _, out = made
    write_state_dict(tmp_path / "strange.safetensors", {"other": torch.zeros(2)})
    with pytest.raises(InputError, match=r"is another model: it has no layers\.0\.weight of shape \[60, 40\]"):
        write_adapter(files["base"], files["unlearned"], tmp_path / "strange.safetensors", 4, out)


@pytest.mark.heavy(5)
def test_a_run_whose_base_learnt_in_an_adapter_is_exported_as_one(tmp_path):
    config = {
        "name": "tiny", "device": "cpu", "workers": 1, "threads": 1,
        "model": {"family": "small-cnn", "width": 4},
        "data": {"source": "digits", "forget": {"classes": ["3"]}},
        "base": {"train": {"epochs": 2, "lr": 0.01, "batch_size": 64}},
        "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3], "epochs": [1]}, "adapter": {"r": 2}},
        "methods": ["uniform"],
    }  # fmt: skip
    run(check_config(config), tmp_path / "run")
    state = read_state_dict(tmp_path / "run/base/model.safetensors")
    name = next(name for name, value in state.items() if value.dim() == 2)
    draw = torch.Generator().manual_seed(0)
    factors = torch.randn(state[name].shape[0], 1, generator=draw), torch.randn(1, state[name].shape[1], generator=draw)
    write_state_dict(tmp_path / "clean.safetensors", {**state, name: state[name] - 0.01 * factors[0] @ factors[1]})
    given = {"adapter_on": tmp_path / "clean.safetensors", "rank": 3}
    done = export(tmp_path / "run", tmp_path / "out", **given)
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} < set(done.sha256)
    assert "model.safetensors" not in done.sha256 and verify_folder(done.path).count == len(done.sha256)
    card = (done.path / "README.md").read_text()
    assert "library_name: peft" in card and "an adapter of rank 3 on that model" in card
    roles = [
        one["annotations"]["role"]
        for one in read_statement(done.path)["predicate"]["buildDefinition"]["resolvedDependencies"]
    ]
    assert roles[:2] == ["row", "clean"]
    assert export(tmp_path / "run", tmp_path / "out", **given).sha256 == done.sha256  # it is there already
    with pytest.raises(InputError, match=r"needs both the clean model \(--adapter-on CLEAN\) and its rank"):
        export(tmp_path / "run", tmp_path / "other", rank=3)
