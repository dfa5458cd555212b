"""Classes of images as clients of a network with running statistics: the method knows no task."""

import pytest
import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.exact import Service
from negmerge.exact.config import check_exact
from negmerge.exact.population import load_population

CONFIG = {
    "name": "digits",
    "model": {"family": "small-cnn", "width": 4},
    "data": {"source": "digits"},
    "clients": {"groups": ["1", "3", "7"], "train": {"epochs": 2, "lr": 0.01, "batch_size": 32, "augment": "crop1"}},
}


@pytest.mark.heavy(7)
def test_a_class_is_deleted_and_statistics_are_those_of_the_base(tmp_path):
    place = tmp_path / "base.safetensors"
    config = {**CONFIG, "base": {"checkpoint": str(place)}}
    write_state_dict(place, {})  # there must be a file before the network is known
    task = load_population(check_exact(config)).task
    write_state_dict(place, task.trained(task.start(0)))
    service, few = Service(tmp_path / "all"), Service(tmp_path / "few")
    state = service.learn(check_exact(config))
    assert [one["name"] for one in state["clients"]] == ["1", "3", "7"]
    assert service.verify(["7"])["clients"] == 3
    left = service.forget(["3"])
    chosen = {**config, "clients": {**CONFIG["clients"], "groups": ["1", "7"]}}
    assert few.learn(check_exact(chosen))["sum"] == left["sum"]
    assert service.serve(tmp_path / "a.safetensors", "1") == few.serve(tmp_path / "b.safetensors", "1")
    base, served = read_state_dict(place), read_state_dict(tmp_path / "a.safetensors")
    moved = [name for name in base if not torch.equal(base[name], served[name])]
    assert moved and not [name for name in moved if "running" in name or "num_batches" in name]
    model = task.open(tmp_path / "a.safetensors")
    population = load_population(check_exact(config))
    own = torch.tensor(population.rows["1"])
    before, after = (
        float(task.observe(one, {"own": own}, {"own": ["loss"]})["own"]["loss"].mean())
        for one in (task.open(place), model)
    )
    assert after < before
