"""What gives a base back, on weights where the answer is known."""

import json

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.evidence.restoring import changed_share, restore, restored_state, weight_files

ALPHA = 1.85


@pytest.fixture
def made(tmp_path):
    """Files by name: a base, τ (zero on half of the elements), base − α·τ, members of mean base + τ, others."""
    draw = torch.Generator().manual_seed(0)
    base = {
        "w": torch.randn(300, 200, generator=draw),
        "b": torch.randn(50, generator=draw),
        "bn.running_var": torch.ones(9),
    }
    tau = {name: 0.01 * torch.randn(value.shape, generator=draw) for name, value in base.items()}
    for value in tau.values():
        value.view(-1)[::2] = 0.0
    noise = {name: 0.02 * torch.randn(value.shape, generator=draw) for name, value in base.items()}
    unlearned = {name: base[name] - ALPHA * tau[name] for name in base}
    unlearned["bn.running_var"] = torch.full((9,), 3.0)  # re-estimated: on no line
    states = {
        "base": base,
        "tau": {name: tau[name] for name in ("w", "b")},
        "unlearned": unlearned,
        "one": {name: base[name] + tau[name] + noise[name] for name in base},
        "two": {name: base[name] + tau[name] - noise[name] for name in base},
        "deeper": {name: base[name] - 1.2 * tau[name] for name in base},
        "stranger": {name: torch.randn(value.shape, generator=draw) for name, value in base.items()},
        "other": {"v": torch.ones(3)},
    }
    files = {name: tmp_path / f"{name}.safetensors" for name in states}
    for name, state in states.items():
        write_state_dict(files[name], state)
    return files, states


def test_a_vector_that_was_subtracted_gives_the_base_back_within_rounding(made):
    files, states = made
    found = restore(files["base"], files["unlearned"], [files["tau"]])
    assert found.how == "vector" and found.factor == pytest.approx(ALPHA, abs=1e-5)
    assert found.restores and found.recovered > 0.9999 and found.exact == 1.0
    state = {name: value.clone() for name, value in states["unlearned"].items()}
    restored_state(found, files["unlearned"], state)
    for name in ("w", "b"):
        assert torch.allclose(state[name], states["base"][name], rtol=1e-6, atol=1e-7)
    assert torch.equal(state["bn.running_var"], states["unlearned"]["bn.running_var"])


def test_the_base_itself_another_row_and_the_mean_of_the_members_do_so_too(made):
    files, _ = made
    copy = restore(files["base"], files["unlearned"], [files["base"]])
    assert (copy.how, copy.factor, copy.exact) == ("copy", 1.0, 1.0) and copy.restores
    other = restore(files["base"], files["unlearned"], [files["deeper"]])
    assert other.how == "weights" and other.restores
    assert other.factor == pytest.approx(ALPHA / (ALPHA - 1.2), rel=1e-4)
    mean = restore(files["base"], files["unlearned"], [files["one"], files["two"]])
    assert mean.restores and mean.factor == pytest.approx(ALPHA / (ALPHA + 1), rel=1e-4)


def test_one_member_alone_and_strangers_do_not(made):
    files, _ = made
    for name in ("one", "stranger"):
        found = restore(files["base"], files["unlearned"], [files[name]])
        assert not found.restores and found.recovered < 0.9, name
    assert restore(files["base"], files["unlearned"], [files["other"]]) is None
    with pytest.raises(InputError, match="no such file"):
        restore(files["base"], files["base"].with_name("gone.safetensors"), [files["tau"]])


def test_a_negating_adapter_gives_the_base_back(made, tmp_path):
    _files, states = made
    draw = torch.Generator().manual_seed(1)
    a, b = 0.1 * torch.randn(4, 200, generator=draw), 0.1 * torch.randn(300, 4, generator=draw)
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["w"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    named = {"base_model.model.l.lora_A.weight": a, "base_model.model.l.lora_B.weight": b}
    write_state_dict(folder / "adapter_model.safetensors", named)
    model = {"l.weight": states["base"]["w"] - 2 * (b @ a)}
    write_state_dict(tmp_path / "u.safetensors", model)
    write_state_dict(tmp_path / "b.safetensors", {"l.weight": states["base"]["w"]})
    found = restore(tmp_path / "b.safetensors", tmp_path / "u.safetensors", [folder])
    assert found.how == "vector" and found.restores and found.factor == pytest.approx(1.0, abs=1e-4)
    assert folder in weight_files(tmp_path) and folder / "adapter_model.safetensors" not in weight_files(tmp_path)


def test_how_much_was_changed_and_which_files_are_weights(made, tmp_path):
    files, _ = made
    assert changed_share(files["base"], files["base"]) == 0.0
    assert changed_share(files["base"], files["unlearned"]) == pytest.approx(0.5, abs=0.01)
    (tmp_path / ".hidden.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert weight_files(tmp_path) == sorted(files.values())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "private").symlink_to(tmp_path)  # a part of the run that lies elsewhere, and holds the run
    assert weight_files(tmp_path / "run") == sorted(tmp_path / "run/private" / file.name for file in files.values())


def test_the_evidence_names_what_restores_and_what_is_shipped_does_not(subject_of, weights, tmp_path):
    _material, files = weights
    test, settings = read_test("reversibility"), checked_settings("reversibility", {})
    base, head = (dict(state) for state in map(_read, (files["base"], files["head"])))
    vector = {name: base[name] - head[name] for name in base if not torch.equal(base[name], head[name])}
    run = tmp_path / "run"
    for name, state in (("base/model", base), ("methods/head/model", head), ("private/vector", vector)):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        write_state_dict(run / f"{name}.safetensors", state)
    model = run / "methods/head/model.safetensors"
    subject = subject_of("head", model=model, folder=run, shipped=(model,))
    found = test.run(subject, settings)
    assert {one["files"][0] for one in found.facts["files"]} == {"base/model.safetensors", "private/vector.safetensors"}
    assert found.facts["shipped"] == [] and found.facts["nearest"]["factor"] == pytest.approx(1.0, abs=1e-4)
    assert found.text.startswith("Nothing that would be shipped gives the base back.")
    assert (
        "base itself is base/model.safetensors" in found.text and "private/vector.safetensors (times 1)" in found.text
    )
    assert found.counted.model == pytest.approx(found.counted.base)  # what comes back is the base, on the rows as well
    shipped = test.run(
        subject_of("head", model=model, folder=run, shipped=(model, run / "private/vector.safetensors")), settings
    )
    assert "What would be shipped gives the base back: private/vector.safetensors." in shipped.text
    for name in ("base/model", "private/vector"):
        (run / f"{name}.safetensors").unlink()
    purged = test.run(subject, settings)
    assert purged.facts["files"] == [] and "Nor does anything in the run directory" in purged.text
    assert not purged.counted.informative
    assert not test.run(subject_of("again"), settings).counted.informative  # a control has no directory


def _read(file):
    from negmerge.checkpoints import read_state_dict

    return read_state_dict(file)


def test_a_model_without_a_tensor_in_common_is_not_the_base(made):
    files, _ = made
    assert changed_share(files["base"], files["other"]) is None
    assert restore(files["base"], files["other"], [files["other"]]) is None
