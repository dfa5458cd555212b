"""A bad member of a pool is found and named; members that only differ are not."""

import json

import pytest
import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.cli import main
from negmerge.merging.advice import advise
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.health import health_of, odd_members
from negmerge.merging.inspecting import inspect_checkpoints


def matrix(count, pairs, rest):
    """Cosines [N, N]: `rest` everywhere but for the rows of single members in `pairs`."""

    def entry(i, j):
        return 1.0 if i == j else min((pairs[k] for k in (i, j) if k in pairs), default=rest)

    return [[entry(i, j) for j in range(count)] for i in range(count)]


def inspect(*words):
    with pytest.raises(SystemExit) as done:
        main(["inspect", *map(str, words)])
    assert not done.value.code


def test_likeness_by_hand():
    # Two others with a cosine of 0.28 between them: their sum has a squared length of 2.56; 0.8 + 0.8 over 1.6 is 1.
    cosine = [[1.0, 0.8, 0.8], [0.8, 1.0, 0.28], [0.8, 0.28, 1.0]]
    first, second, third = health_of(["a", "b", "c"], cosine, [2.0, 1.0, 4.0])
    assert first.likeness == pytest.approx(1.0) and first.usual == pytest.approx(0.28)
    assert second.likeness == pytest.approx(1.08 / 3.6**0.5) == third.likeness
    assert [one.size for one in (first, second, third)] == [2.0 / 2.5, 1.0 / 3.0, 4.0 / 1.5]
    assert not any(one.bad for one in (first, second, third)) and first.with_majority is None


@pytest.mark.parametrize(
    ("cosine", "odd"),
    [
        (matrix(5, {}, 0.8), []),
        (matrix(5, {2: 0.1}, 0.8), [2]),
        (matrix(5, {2: -0.7}, 0.8), [2]),
        (matrix(7, {0: 0.0, 4: -0.2}, 0.6), [4, 0]),  # the worst first
        (matrix(4, {2: 0.0}, 0.8), []),  # of four nobody can tell; merge warns of cosines of 0 and less
        (matrix(6, {}, 0.01), []),  # nothing in common, so nothing to be unlike
        (matrix(6, {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}, 0.8), []),
        ([[float("nan")] * 4] * 4, []),
        ([[1.0]], []),
        ([], []),
    ],
)
def test_odd_members(cosine, odd):
    assert odd_members(cosine) == odd


def test_two_camps_accuse_nobody():
    camps = [[1.0 if i == j else 0.9 if (i < 4) == (j < 4) else 0.2 for j in range(8)] for i in range(8)]
    assert odd_members(camps) == []


def test_a_member_that_hardly_moved_is_named():
    cosine, sizes = matrix(5, {}, 0.8), [1.0, 2.0, 30.0, 1e-4, 0.01]
    assert odd_members(cosine, sizes) == [3]
    assert [one.bad for one in health_of("abcde", cosine, sizes)] == [False, False, False, True, False]


def test_a_member_that_did_not_move_hides_no_other():
    nan = float("nan")
    cosine = [[*row, nan] for row in matrix(6, {2: 0.0}, 0.8)] + [[nan] * 7]
    assert odd_members(cosine, [1.0] * 6 + [0.0]) == [2, 6]
    health = health_of("abcdefg", cosine, [1.0] * 6 + [0.0])
    assert [one.member for one in health if one.bad] == ["c", "g"]
    assert health[0].likeness > 0.8 and health[6].as_json()["likeness"] is None and health[6].size == 0.0
    assert odd_members([[nan] * 5] * 5, [0.0] * 5) == []


def test_advice():
    assert "uniform is as good" in advise(matrix(4, {}, 0.9), 0.7)
    assert "agree on 0.7 % of the elements only" in advise(matrix(27, {}, 0.2), 0.007)
    assert "a threshold of 0.75, or uniform, was nearer" in advise(matrix(4, {}, 0.2), 0.007)
    assert "uniform was nearer" in advise(matrix(3, {}, 0.2), 0.007)  # of three, three quarters are all
    assert advise(matrix(27, {}, 0.2), 0.007, threshold=0.75) is None
    assert "agree on 7.2 % of the elements" in advise(matrix(9, {}, 0.2), 0.072)
    assert advise(matrix(8, {}, 0.2), 0.072) is None
    assert advise(matrix(4, {}, 0.4), 0.3) is None and advise([[1.0]], 1.0) is None and advise([], 1.0) is None


@pytest.fixture
def pool(tmp_path):
    """A base and six members that share a step; the last has the sign of it the other way."""
    generator = torch.Generator().manual_seed(0)

    def noise():
        return torch.randn(3, 6000, generator=generator)

    base, step = noise(), noise()
    write_state_dict(tmp_path / "base.safetensors", {"w": base})
    paths = [tmp_path / f"m{i}.safetensors" for i in range(6)]
    for i, path in enumerate(paths):
        write_state_dict(path, {"w": base + 0.01 * ((1 if i < 5 else -1) * step + 0.3 * noise())})
    return tmp_path / "base.safetensors", paths


def test_inspect_and_merge_name_the_member(pool, tmp_path, capsys):
    base, paths = pool
    found = inspect_checkpoints(base, paths)
    assert [one.bad for one in found.health] == [False] * 5 + [True]
    assert found.health[5].with_majority < 0.2 < 0.8 < found.health[0].with_majority
    honest = inspect_checkpoints(base, paths[:5])
    assert found.health[5].unanimous_without == pytest.approx(honest.consensus)
    assert found.health[0].unanimous_without < 0.1 < honest.consensus
    assert not any(one.bad for one in honest.health) and honest.warnings == ()
    assert "agree too well" in honest.advice
    (line,) = found.warnings
    assert line.startswith("unstable-signs: ") and "m5.safetensors" in line and line.endswith("leave it out")
    report = merge_checkpoints(base, paths, tmp_path / "out.safetensors")
    assert report.warnings == found.warnings
    inspect(base, *paths[:5])
    said = capsys.readouterr().out
    assert said.count("advice") == 1 and said.count("usual") == 5 and "UNLIKE" not in said
    inspect(base, *paths, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert [one["bad"] for one in facts["health"]] == [False] * 5 + [True]
    assert facts["health"][0]["member"].endswith("m0.safetensors")


def test_a_member_with_little_in_common_is_named(pool, tmp_path):
    base, paths = pool
    other = torch.Generator().manual_seed(9)
    state, own = read_state_dict(base), read_state_dict(paths[0])
    drawn = 0.02 * torch.randn(3, 6000, generator=other)
    write_state_dict(paths[5], {"w": state["w"] + 0.2 * (own["w"] - state["w"]) + drawn})
    found = inspect_checkpoints(base, paths)
    assert [one.bad for one in found.health] == [False] * 5 + [True]
    (line,) = found.warnings
    assert "m5.safetensors has little in common with the other members (below 30 % of what they have" in line


def test_large_pools_are_looked_at_by_a_sample(pool, monkeypatch):
    from negmerge.merging import health

    base, paths = pool
    whole = inspect_checkpoints(base, paths).health
    monkeypatch.setattr(health, "LOOKED_AT", 6000)
    monkeypatch.setattr(health, "BLOCK", 500)
    for all_elements, some in zip(whole, inspect_checkpoints(base, paths).health, strict=True):
        assert some != all_elements
        assert some.with_majority == pytest.approx(all_elements.with_majority, abs=0.03)
        assert some.unanimous_without == pytest.approx(all_elements.unanimous_without, abs=0.03)


def test_one_member_and_two(pool):
    base, paths = pool
    (alone,) = inspect_checkpoints(base, paths[:1]).health
    assert alone.as_json()["likeness"] is None and not alone.bad
    both = inspect_checkpoints(base, paths[4:])
    assert not any(one.bad for one in both.health) and both.health[0].as_json()["usual"] is None
    assert both.health[0].unanimous_without == pytest.approx(1.0)
