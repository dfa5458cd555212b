"""The k-th largest magnitude, found in chunks, against sorting."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negmerge.merging.passes.ranking import RankSearch
from negmerge.merging.trimming import kept_of, kth_magnitudes


def searched(values, ranks, size, threads=1):
    numbers = values.numpy()
    search = RankSearch(len(values), ranks, values.shape[1], numbers.dtype)
    passes = 0
    while not search.done:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search.add, [numbers[:, at : at + size] for at in range(0, numbers.shape[1], size)]))
        passes += 1
    return torch.from_numpy(search.values), passes


def by_sorting(values, ranks):
    return values.abs().sort(dim=1, descending=True).values[:, [rank - 1 for rank in ranks]]


@pytest.mark.parametrize(("dtype", "passes"), [(torch.float32, 2), (torch.float64, 4)])
@pytest.mark.parametrize("size", [7, 64, 1000])
def test_search_equals_sorting(dtype, passes, size):
    count = 1000 if size > 1 else 250  # one element at a time is the slow way
    values = torch.randn(4, count, generator=torch.Generator().manual_seed(0), dtype=dtype)
    values[1] *= 1e-40 if dtype == torch.float32 else 1e-310  # denormals
    values[2, ::2] = 0.0
    values[3] = values[3].round()  # many ties
    ranks = (1, 2, 17, count // 5, count // 2, count - 1, count)
    found, taken = searched(values, ranks, size, threads=3)
    assert torch.equal(found, by_sorting(values, ranks)) and taken == passes
    assert torch.equal(found, kth_magnitudes(values, ranks))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_any_numbers(numbers, rank, size):
    values = torch.tensor([numbers], dtype=torch.float32)
    rank = min(rank, len(numbers))
    assert torch.equal(searched(values, (rank,), size)[0], by_sorting(values, (rank,)))


def test_a_search_takes_memory_only_while_it_counts():
    search = RankSearch(2, (1,), 10, np.dtype(np.float32))
    assert search._counts is None
    search.add(np.ones((2, 5), np.float32))
    assert search._counts is not None
    search.add(np.ones((2, 5), np.float32))
    assert search._counts is None


@pytest.mark.parametrize(
    ("density", "count", "kept"), [(0.2, 10, 2), (0.29, 100, 29), (0.7, 10, 7), (0.1, 3, 1), (1.0, 3, 3), (0.5, 0, 0)]
)
def test_how_many_are_kept(density, count, kept):
    assert kept_of(density, count) == kept
