"""Every number of a few small runs is what it was when its file was made, to the last bit."""

import golden_runs
import pytest

LONG = {"digits-random": 7, "digits-table": 6, "clip": 5}
RUNS = [pytest.param(n, marks=[pytest.mark.heavy(LONG[n])] if n in LONG else []) for n in golden_runs.NAMES]


@pytest.mark.parametrize("name", RUNS)
def test_no_number_has_moved(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NEGMERGE_CACHE", str(tmp_path / "cache"))
    kept, arithmetic = golden_runs.read(name)
    found = golden_runs.measure(name, tmp_path)
    assert sorted(found) == sorted(kept)
    if arithmetic != golden_runs.arithmetic():
        pytest.skip("this machine or its libraries round otherwise; the names were compared, the numbers not")
    assert {key: (kept[key], value) for key, value in found.items() if value != kept[key]} == {}
