"""Methods that look at whole tensors first: streamed equals in memory, per tensor and over the model."""

import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts, merge_vector
from negmerge.merging.methods import breadcrumbs, ties
from negmerge.merging.passes import plain
from pools import drift, make_state

MERGED = ("stem.weight", "stem.bias", "scale", "empty", "half", "brain", "exact", "head.weight")
METHODS = ["ties", "breadcrumbs", "magnitude-consensus", "random-mask", "dare", "chance-intersection", "shuffled-signs"]
SCOPED = ["ties", "breadcrumbs", "magnitude-consensus", "random-mask"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk", [1, 5, 2**18])
def test_chunks_and_workers_do_not_change_the_bytes(pool, tmp_path, monkeypatch, method, chunk):
    base, members = pool
    scopes = [{}, {"scope": "model"}] if method in SCOPED else [{}]
    for settings in scopes:
        first = merge_checkpoints(
            base, members, tmp_path / "a.safetensors", method=method, settings=settings, workers=1
        )
        with monkeypatch.context() as patch:
            patch.setattr(plain, "CHUNK", chunk)
            second = merge_checkpoints(
                base, members[::-1], tmp_path / "b.safetensors", method=method, settings=settings, workers=3
            )
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
        assert first.kept == second.kept
        (tmp_path / "a.safetensors").unlink(), (tmp_path / "b.safetensors").unlink()


def deltas_of(pool):
    base, *members = (read_state_dict(path) for path in (pool[0], *pool[1]))
    work = {name: torch.float64 if base[name].dtype == torch.float64 else torch.float32 for name in MERGED}
    return {
        name: torch.stack([(m[name].to(work[name]) - base[name].to(work[name])).reshape(-1) for m in members])
        for name in MERGED
    }


@pytest.mark.parametrize(("method", "module"), [("ties", ties), ("breadcrumbs", breadcrumbs)])
@pytest.mark.parametrize("chunk", [3, 2**18])
def test_over_the_model_equals_one_long_vector(pool, tmp_path, monkeypatch, method, module, chunk):
    monkeypatch.setattr(plain, "CHUNK", chunk)
    merge_vector(*pool, tmp_path / "v.safetensors", method=method, settings={"density": 0.3, "scope": "model"})
    found = load_file(tmp_path / "v.safetensors")
    deltas = deltas_of(pool)
    long = torch.cat([deltas[name].double() for name in MERGED], dim=1)
    whole = module.merge(long, module.Settings(density=0.3)).delta
    expected = dict(zip(MERGED, whole.split([deltas[n].shape[1] for n in MERGED]), strict=True))
    for name in MERGED:
        torch.testing.assert_close(found[name].double().reshape(-1), expected[name], rtol=1e-6, atol=1e-9)
        assert torch.equal(found[name].reshape(-1) != 0, expected[name] != 0)


def test_settings_for_some_tensors(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "CHUNK", 4)
    settings = {"density": 0.5, "density[weight$]": 0.1, "density[^head]": 0.9}
    report = merge_vector(*pool, tmp_path / "v.safetensors", method="ties", settings=settings)
    found, deltas = load_file(tmp_path / "v.safetensors"), deltas_of(pool)
    for name, density in {"stem.bias": 0.5, "half": 0.5, "stem.weight": 0.1, "head.weight": 0.9}.items():
        assert torch.equal(found[name].reshape(-1), ties.merge(deltas[name], ties.Settings(density=density)).delta), (
            name
        )
    kept = {tensor.name: tensor.kept / max(1, tensor.elements) for tensor in report.tensors}
    assert kept["stem.weight"] < kept["stem.bias"] < kept["head.weight"] + 0.1


def test_settings_for_some_tensors_of_a_compiled_method(pool, tmp_path, monkeypatch):
    settings = {"threshold": 1.0, "threshold[weight$]": 0.6}
    results = []
    for available in (True, False):
        monkeypatch.setattr(compiling, "AVAILABLE", available and compiling.AVAILABLE)
        merge_vector(*pool, tmp_path / "v.safetensors", settings=settings)
        results.append((tmp_path / "v.safetensors").read_bytes())
    assert results[0] == results[1]
    found = load_file(tmp_path / "v.safetensors")
    merge_vector(*pool, tmp_path / "s.safetensors")
    strict = load_file(tmp_path / "s.safetensors")
    assert torch.equal(found["stem.bias"], strict["stem.bias"])
    assert torch.count_nonzero(found["stem.weight"]) > torch.count_nonzero(strict["stem.weight"])


def test_a_pattern_that_matches_nothing_is_an_error(pool, tmp_path):
    with pytest.raises(InputError, match=r"density\[attn\] matches none of the 8 merged names, such as 'exact'"):
        merge_checkpoints(*pool, tmp_path / "o.safetensors", method="ties", settings={"density[attn]": 0.1})
    assert not (tmp_path / "o.safetensors").exists()


def test_weights_follow_their_members(pool, tmp_path):
    base, members = pool
    weights = [0.1, 0.2, 0.3, 0.4, -1.0]
    one, two = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    merge_checkpoints(base, members, one, method="task-arithmetic", settings={"weights": weights})
    merge_checkpoints(base, members[::-1], two, method="task-arithmetic", settings={"weights": weights[::-1]})
    assert one.read_bytes() == two.read_bytes()
    states = [read_state_dict(path) for path in (base, *members)]
    delta = sum(w * (m["stem.bias"] - states[0]["stem.bias"]) for w, m in zip(weights, states[1:], strict=True))
    torch.testing.assert_close(load_file(one)["stem.bias"], states[0]["stem.bias"] - delta)
    with pytest.raises(InputError, match="weights has 2 entries for 5 members"):
        merge_checkpoints(base, members, tmp_path / "c", method="task-arithmetic", settings={"weights": [1, 2]})


def test_the_bytes_read_count_every_pass(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "CHUNK", 5)
    events = []
    report = merge_checkpoints(*pool, tmp_path / "o.safetensors", method="ties", on_event=events.append)
    once = merge_checkpoints(*pool, tmp_path / "p.safetensors")
    assert report.bytes_read > 2 * once.bytes_read
    assert max(event["bytes"] for event in events) == events[0]["of"] == report.bytes_read


def test_a_nan_is_found_by_the_first_pass(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "CHUNK", 5)
    base, members = pool
    state = read_state_dict(members[2])
    state["head.weight"][1, 1] = float("nan")
    write_state_dict(members[2], state)
    with pytest.raises(InputError, match=r"member2.safetensors: tensor head.weight holds NaN or Inf"):
        merge_checkpoints(base, members, tmp_path / "o.safetensors", method="ties")


def test_a_seed_draws_and_a_plain_method_takes_none(tmp_path):
    base = make_state(0)
    members = [drift(base, i) for i in range(3)]
    one = merge_state_dicts(base, members, method="dare", seed=1)
    assert torch.equal(one["stem.weight"], merge_state_dicts(base, members, method="dare", seed=1)["stem.weight"])
    assert not torch.equal(one["stem.weight"], merge_state_dicts(base, members, method="dare")["stem.weight"])
    with pytest.raises(InputError, match="method ties: it draws nothing, so it takes no seed"):
        merge_state_dicts(base, members, method="ties", seed=1)
