"""The search of an α for each group, on a curve that is known."""

import json
from types import SimpleNamespace

import pytest
import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.unlearning.methods.alpha_by_layer import Settings, _Search

BEST = {"stem.weight": 4.0, "layer.0.w.weight": 1.0, "head.weight": 0.5}


def search(tmp_path, settings, vector=1.0, calls=None):
    """A search whose score is the distance of each scale, in powers of two, to a known best one."""
    state = {name: torch.full((2, 2), vector) for name in BEST}
    base, file = tmp_path / "base.safetensors", tmp_path / "v.safetensors"
    write_state_dict(base, {**state, "bn.weight": torch.ones(2)})
    write_state_dict(file, {**state, "bn.weight": torch.zeros(2)})

    def score(path, alpha):
        found = read_state_dict(path)
        if calls is not None:
            calls.append(alpha)
        apart = [abs(float(torch.log2(found[name][0, 0] / BEST[name]))) for name in BEST]
        return {"gap": sum(apart)}

    context = SimpleNamespace(base=base, chosen=tmp_path, score=score, rank=_rank)
    return _Search(context, file, 3.0, settings, {"gap": 3.0})


def _rank(scores):
    return (scores["gap"],)


def test_every_group_finds_its_own_scale(tmp_path):
    calls = []
    found = search(tmp_path, Settings(), calls=calls)
    scales, scores = found.run()
    assert scales == {"stem": 4.0, "layer.0": 1.0, "head": 0.5} and scores["gap"] == 0.0
    assert set(calls) == {3.0} and len(calls) <= 30
    assert found.factors(scales)["head.weight"] == 0.5 and "norms" not in found.groups


def test_the_budget_holds_and_what_was_evaluated_is_read_back(tmp_path):
    calls = []
    first = search(tmp_path, Settings(evaluations=3), calls=calls).run()
    assert len(calls) == 3 and len(json.loads((tmp_path / "by-layer.points.json").read_text())) == 3
    assert search(tmp_path, Settings(evaluations=3), calls=calls).run() == first and len(calls) == 3
    assert first[0]["stem"] == 4.0  # a direction that helps is followed


def test_a_vector_of_zeros_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 everywhere"):
        search(tmp_path, Settings(), vector=0.0)
