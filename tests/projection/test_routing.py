"""Models that choose by the row which of their modules they call, and batches that are as large as they are long."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

from negmerge import unlearn
from negmerge.projection import MomentRows, Moments, Projection, project_vector, write_moments
from negmerge.projection.collecting import collect, survey


class Routed(nn.Module):
    """Two experts, to which rows go by the sign of their first input, and a third that nobody asks."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 6) for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        out = x.new_zeros(len(x), 6)
        for i, expert in enumerate(self.experts[:2]):
            chosen = (x[:, 0] > 0) == bool(i)
            if chosen.any():
                out = out.index_put((chosen.nonzero()[:, 0],), expert(x[chosen]).relu())
        return self.head(out)


def run(model, batch):
    return model(batch)


def rows(first, seed, count=20):
    """Rows whose first inputs have these signs in turn."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    signs = torch.tensor([float(first[i % len(first)]) for i in range(count)])
    x[:, 0] = x[:, 0].abs() * signs
    return MomentRows(lambda: x.split(5), count, "rows")


def moments(path, forget, retain):
    torch.manual_seed(0)
    model = Routed().eval()
    write_moments(path, model, forget, retain, run, next(iter(forget.batches()))[:1], {})
    return model, Moments(path)


def test_an_expert_that_the_first_row_misses_is_seen(tmp_path):
    _, found = moments(tmp_path / "m", rows((-1, 1), 1), rows((1, -1), 2))
    with found:
        assert [layer.name for layer in found.layers] == ["experts.0.weight", "experts.1.weight", "head.weight"]
        assert found.unseen == ("experts.2.weight",)
        x = torch.cat(list(rows((-1, 1), 1).batches()))
        own = torch.cat([x[x[:, 0] > 0], torch.ones(10, 1)], dim=1).double()
        torch.testing.assert_close(found.of("forget", "experts.1")[0], own.T @ own / 10)


@pytest.mark.parametrize("forget, retain", [((-1, 1), (-1,)), ((-1,), (-1, 1))])
def test_an_expert_that_one_kind_of_rows_misses_is_left_out_and_named(tmp_path, forget, retain):
    model, found = moments(tmp_path / "m", rows(forget, 1), rows(retain, 2))
    save_file({name: torch.ones_like(value) for name, value in model.state_dict().items()}, tmp_path / "v.safetensors")
    with found:
        assert [layer.name for layer in found.layers] == ["experts.0.weight", "head.weight"]
        assert sorted(found.unseen) == ["experts.1.weight", "experts.2.weight"]
        report = project_vector(Projection(found, 1.0), tmp_path / "v.safetensors", tmp_path / "p.safetensors")
    assert report.without == [f"experts.{i}.{name}" for i in (1, 2) for name in ("bias", "weight")]
    projected = load_file(tmp_path / "p.safetensors")
    assert projected["experts.1.weight"].abs().max() == 0
    assert projected["experts.0.weight"].abs().max() > 0


def test_unlearn_goes_on_where_retain_rows_miss_an_expert():
    torch.manual_seed(0)
    model = Routed()
    forget, retain = (torch.cat(list(rows(signs, seed).batches())) for signs, seed in (((-1, 1), 1), ((-1,), 2)))
    sets = [TensorDataset(x, torch.full((len(x),), label)) for x, label in ((forget, 2), (retain, 1))]
    pool = {"train": {"batch_size": 10}, "grid": {"lr": [1e-3], "epochs": [1]}}
    done = unlearn(model, *sets, pool=pool, projection=10)
    assert "experts.1.weight" in done.results["methods"]["consensus projected"]["projection"]["without"]


class Sequence(nn.Module):
    """Tokens in rows, then a transformer layer and a linear one that see them in columns."""

    def __init__(self):
        super().__init__()
        self.embed, self.last = nn.Embedding(20, 8), nn.Linear(8, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=False)
        self.head = nn.Linear(8, 3)

    def forward(self, batch):
        ids, real = batch
        x = self.layer(self.embed(ids).transpose(0, 1), src_key_padding_mask=~real)
        return self.head(self.last(x).mean(0))


def test_padding_is_told_where_a_batch_is_as_large_as_it_is_long():
    torch.manual_seed(0)
    model, ids = Sequence().eval(), torch.randint(0, 20, (6, 6))
    real = torch.arange(6)[None] < torch.tensor([6, 1, 2, 3, 4, 5])[:, None]
    found = survey(model, run, (ids[:1], real[:1]), real=lambda batch: batch[1])
    places = [place for place in found.sources if place not in found.added]

    def taken(size):
        batches = [(ids[i : i + size], real[i : i + size]) for i in range(0, 6, size)]
        return collect(model, found, places, batches, run, lambda batch: batch[1])

    square, others = taken(6), taken(3)
    for place in places:
        torch.testing.assert_close(square[place], others[place], rtol=1e-5, atol=1e-7)
