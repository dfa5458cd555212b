"""Merged weights are those of the golden file, bit by bit."""

import json
from pathlib import Path

import pytest

from golden_merges import CASES, label, merge_hash, write_pools
from negmerge import registry

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    return write_pools(tmp_path_factory.mktemp("golden"))


def test_every_method_has_golden_merges():
    assert sorted(CASES) == registry.names("methods", "negmerge.merging.methods")


@pytest.mark.parametrize("method", CASES)
def test_the_numbers_are_those_of_the_golden_file(pools, tmp_path, method):
    found = {
        label(pool, settings): merge_hash(pools, pool, method, settings, tmp_path / f"{pool}-{i}.safetensors")
        for pool in pools
        for i, settings in enumerate(CASES[method])
    }
    assert found == GOLDEN[method]
