"""The arguments of a merge: all that is wrong in one error, before a file is opened."""

import pytest
import torch

from negmerge.checking import MistakesError, mistakes_of
from negmerge.errors import InputError
from negmerge.merging.as_adapter import merge_as_adapter
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts, merge_vector
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.merging.merger import Merger
from negmerge.merging.request import check_request

WRONG = {
    "alpha": ("x", "alpha must be a finite number, got 'x': scale of the negation"),
    "add": (1, "add must be true or false, got 1"),
    "include": ("attn", "include must be a list of texts, got 'attn': regular expressions of tensor names"),
    "exclude": (["("], "--exclude '(' is not a regular expression"),
    "seed": (True, "seed must be a whole number, got True"),
    "device": ("tpu", "--device tpu: choose cpu, cuda, cuda:NUMBER or mps"),
    "dtype": ("float8", "dtype must be base, float32, float16, bfloat16 or float64, got 'float8'"),
    "workers": (0, "workers must be a whole number from 1 on, got 0: threads"),
    "max_shard_size": ("5XB", "'5XB' is no size"),
    "hash_inputs": ("no", "hash_inputs must be true or false, got 'no'"),
    "members": ("m.safetensors", "members must be a list of paths, got 'm.safetensors'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_one_line(name, tmp_path):
    value, message = WRONG[name]
    arguments = {"base": tmp_path / "absent", "members": [tmp_path / "a"], "output": tmp_path / "o", name: value}
    with pytest.raises(InputError) as caught:
        merge_checkpoints(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_all_mistakes_come_together(tmp_path):
    arguments = {name: value for name, (value, _) in WRONG.items()}
    with pytest.raises(MistakesError) as caught:
        check_request("ties", {"density": "1e-1", "scop": 1, "elect_by[w]": 3}, **arguments)
    text = "\n".join(mistakes_of(caught.value))
    assert all(message in text for _, message in WRONG.values())
    assert "method ties: density must be a number above 0 and at most 1, got '1e-1'" in text
    assert "method ties: it does not take 'scop'" in text and "method ties: elect_by[w] must be mass or count" in text
    assert len(mistakes_of(caught.value)) == len(WRONG) + 3


@pytest.mark.parametrize("settings", [[("density", 1)], "density=1", 3])
def test_settings_are_a_mapping(settings):
    with pytest.raises(InputError, match="settings must be a mapping of names to values, got"):
        check_request("ties", settings)


def test_every_entry_point_checks(tmp_path):
    missing = tmp_path / "absent"
    state = {"w": torch.zeros(2)}
    with pytest.raises(InputError, match="seed must be a whole number"):
        merge_vector(missing, [missing], tmp_path / "v", method="dare", seed="1")
    with pytest.raises(InputError, match="alpha must be a finite number, got '1'"):
        merge_state_dicts(state, [state], alpha="1")
    with pytest.raises(InputError, match="members must be a list of paths, got 'absent'"):
        inspect_checkpoints(missing, "absent")
    with pytest.raises(InputError, match=r"threshold must be a number from 0\.5 to 1, got '1'"):
        inspect_checkpoints(missing, [missing], threshold="1")
    with pytest.raises(InputError, match="rank must be a whole number from 1 on, got True"):
        merge_as_adapter(missing, [missing], tmp_path / "o", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("device", "kind"), [("mps", "mps"), ("cuda", "cuda"), ("cuda:7", "cuda")])
def test_a_device_that_is_not_there_is_one_line(device, kind):
    there = {"mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}[kind]
    if there > int(device.partition(":")[2] or 0):
        assert check_request("uniform", device=device).name == "uniform"
        return
    with pytest.raises(
        InputError, match=rf"--device {device}: torch \S+ finds (no|\d) {kind} device here; choose cpu$"
    ):
        check_request("uniform", device=device)


def test_weights_must_fit_the_members_before_they_are_opened():
    with pytest.raises(InputError, match="weights has 3 entries for 2 members; it needs one for each"):
        check_request("task-arithmetic", {"weights": [1, 2, 3]}, members=["a", "b"])
    assert check_request("task-arithmetic", {"weights[.]": [1, 2]}, members=["a", "b"]).random is False


def test_equal_settings_are_recorded_alike():
    one, other = (Merger("ties", {"density": value, "density[w]": value}) for value in (1, 1.0))
    assert str(one.settings) == str(other.settings) == "{'density': 1.0, 'density[w]': 1.0}"


def test_mps_has_no_float64(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, where, *_: seen.append(where) or tensor)
    Merger("uniform", {}).merge(torch.ones(2, 3, dtype=torch.float64), device="mps")
    Merger("uniform", {}).merge(torch.ones(2, 3), device="mps")
    assert seen == ["cpu", "mps"]
