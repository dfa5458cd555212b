"""A pool whose grid varies the rank: members keep the first ranks of one draw of A, each at its own scale."""

import copy

import pytest
import torch
from torch import nn

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.training.adapters import AdapterSettings, attach, count_elements, write_adapter
from negmerge.training.pool import expand_grid

peft = pytest.importorskip("peft")

DIGITS = {
    "name": "ranks",
    "threads": 1,
    "workers": 1,
    "model": {"family": "small-cnn", "width": 4},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 2, "lr": 1e-2, "batch_size": 64}},
    "methods": ["uniform"],
}
GRID = {"train": {"batch_size": 16, "lr": 1e-2, "epochs": 2}, "grid": {"r": [1, 3]}}


class Net(nn.Module):
    """A layer of every kind that an adapter goes to."""

    def __init__(self):
        super().__init__()
        self.words, self.cells, self.out = nn.Embedding(9, 6), nn.Conv2d(1, 4, 3), nn.Linear(4, 5)

    def forward(self, ids):
        return self.out(self.cells(self.words(ids)[:, None]).mean((2, 3)))


def test_a_smaller_rank_is_the_beginning_of_a_larger_one(tmp_path):
    torch.manual_seed(0)
    plain, ids = Net(), torch.arange(8).view(2, 4)
    names = ["words", "cells", "out"]
    nets = {}
    for rank in (2, 4):
        nets[rank] = copy.deepcopy(plain)
        assert attach(nets[rank], AdapterSettings(r=rank, alpha=6.0, targets=names), 7, drawn=4) == names
    whole = dict(nets[4].named_parameters())
    for name, value in nets[2].named_parameters():
        if "lora" in name:
            first = whole[name][:2] if "_A" in name else whole[name][:, :2]
            assert value.requires_grad and torch.equal(value, first) and value.numel() == whole[name].numel() // 2
    for rank, net in nets.items():
        held = sum(value.numel() for name, value in net.named_parameters() if "lora" in name)
        assert count_elements(plain, AdapterSettings(r=rank, targets=names)) == held
    alone = copy.deepcopy(plain)
    attach(alone, AdapterSettings(r=4, alpha=6.0, targets=names), 7)
    assert all(torch.equal(value, whole[name]) for name, value in alone.named_parameters())
    for rank, net in nets.items():
        with torch.no_grad():
            for name, value in net.named_parameters():
                if "lora" in name:
                    value.normal_(generator=torch.Generator().manual_seed(rank))
        write_adapter(tmp_path / str(rank), net, AdapterSettings(r=rank, alpha=6.0, targets=names), names)
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / str(rank))
        torch.testing.assert_close(net.eval()(ids), theirs.eval()(ids))
        assert not torch.allclose(net(ids), plain(ids))


def test_a_rank_in_a_grid():
    members = expand_grid({"epochs": 2}, {"lr": [1e-3], "r": [4, 8]})
    assert [(m.name, m.rank, m.drawn) for m in members] == [("000-lr0.001-r4", 4, 8), ("001-lr0.001-r8", 8, 8)]
    assert [(m.rank, m.drawn) for m in expand_grid({}, {"lr": [1e-3]})] == [(None, None)]
    for ranks in ([0], [2.5], [True], ["4"]):
        with pytest.raises(InputError, match=r"pool.grid.r: a rank is a whole number from 1"):
            expand_grid({}, {"r": ranks})
    with pytest.raises(InputError, match=r"r is the rank of adapters; give pool.adapter"):
        check_config({**DIGITS, "pool": GRID})


@pytest.mark.heavy(6)
def test_a_run_whose_members_have_ranks_of_their_own(tmp_path):
    adapter = {"targets": ["0", "3", "6", "11"]}
    results = run(check_config({**DIGITS, "pool": {**GRID, "adapter": adapter}}), tmp_path / "run")
    assert results["pool"]["adapter"]["r"] == [1, 3] and results["pool"]["mean_cosine"] > 0.1
    assert [member["settings"]["r"] for member in results["pool"]["members"]] == [1, 3]
    assert "a LoRA adapter of rank 1, 3 on 0, 3, 6, 11" in (tmp_path / "run" / "report.html").read_text()
    folder = tmp_path / "run" / "private" / "pool"
    shapes = [
        read_state_dict(folder / f"{i:03d}-r{rank}" / "adapter" / "adapter_model.safetensors")
        for i, rank in enumerate((1, 3))
    ]
    assert [factors["base_model.model.11.lora_A.weight"].shape[0] for factors in shapes] == [1, 3]
