"""What stands for a client's rows is theirs alone, also where rows have no hashes of their own."""

from types import SimpleNamespace

import pytest
import torch

from negmerge.errors import InputError
from negmerge.exact.population import Population


def population(inputs, batch=None):
    """Two rows of client a, then those of client b, in a table that hashes no row."""
    table = SimpleNamespace(fingerprint=lambda: str(inputs.tolist()))
    task = SimpleNamespace(batch=batch or (lambda rows, device: (inputs[rows], None)))
    return Population(task, table, {"a": [0, 1], "b": list(range(2, len(inputs)))}, "cpu")


def test_rows_without_hashes_hang_on_no_other_client():
    many = population(torch.arange(8.0).view(4, 2))
    fewer, changed = population(torch.arange(6.0).view(3, 2)), population(torch.arange(1.0, 9.0).view(4, 2))
    assert many.hashes("a") == fewer.hashes("a") != changed.hashes("a") and len(set(many.hashes("a"))) == 2
    assert many.hashes("b")[:1] == fewer.hashes("b")


def test_rows_that_cannot_be_told_from_others_are_refused():
    with pytest.raises(InputError, match=r"client a: row 0 has no hash.*give the task's rows a row_hash"):
        population(torch.zeros(3, 2), lambda rows, device: object()).hashes("a")
