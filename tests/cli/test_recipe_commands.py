"""The command line of recipes, and of what one term may have: origin, weights, buffers."""

import json

import pytest
import yaml
from safetensors.torch import load_file, save_file

from pools import load_record


def test_merge_by_a_recipe(negmerge, pool, tmp_path):
    base, members = pool
    recipe = tmp_path / "r.yml"
    terms = [
        {"members": [str(path) for path in members[:3]], "alpha": 0.5},
        {"members": [str(members[3])], "origin": str(members[4]), "method": "uniform", "sign": "+"},
    ]
    recipe.write_text(yaml.safe_dump({"base": str(base), "terms": terms}))
    code, out, _ = negmerge("merge", recipe, "-o", tmp_path / "out")
    assert code == 0 and "base and 2 term(s)" in out
    assert "− 0.5 · consensus of 3 member(s), kept" in out and "+ 1 · uniform of 1 member(s), kept" in out
    code, out, _ = negmerge("merge", tmp_path / "out" / "recipe.yaml", "-o", tmp_path / "o.safetensors", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["method"] == "consensus + uniform"
    found = [(term["add"], term["alpha"], term["members"]) for term in facts["terms"]]
    assert found == [(False, 0.5, 3), (True, 1.0, 1)]
    first, second = load_file(tmp_path / "out" / "model.safetensors"), load_file(tmp_path / "o.safetensors")
    assert all(first[name].equal(value) for name, value in second.items())
    assert "recipe.yaml" in negmerge("verify", tmp_path / "out")[1]
    assert "o.recipe.yaml" in negmerge("verify", tmp_path / "o.safetensors")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--alpha", "2", "--exclude", "w"], "--alpha, --exclude: the recipe {recipe} says all this; write it there"),
        (["--as-adapter", "4"], "--as-adapter: the recipe {recipe} says all this"),
        (["--workers", "0"], "{recipe}: workers must be a whole number from 1 on, got 0: threads"),
        (["--device", "tpu"], "{recipe}: --device tpu: choose cpu"),
    ],
)
def test_what_does_not_go_with_a_recipe_is_one_line(negmerge, pool, tmp_path, words, message):
    base, members = pool
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"base": str(base), "terms": [{"members": [str(members[0])]}]}))
    code, out, err = negmerge("merge", recipe, "-o", tmp_path / "out", *words)
    assert code == 2 and out == "" and message.format(recipe=recipe) in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    code, _, err = negmerge("merge", tmp_path / "none.yaml", "-o", tmp_path / "out")
    assert code == 2 and err == f"negmerge: {tmp_path / 'none.yaml'}: no such file; give a recipe that exists\n"


def test_origin_weights_and_buffers_on_the_command_line(negmerge, pool, tmp_path):
    base, members = pool
    words = ["merge", base, members[0], "--origin", members[1], "--weights", base, "-o"]
    code, _, err = negmerge(*words, tmp_path / "o.safetensors")
    assert code == 2 and "an importance is 0 or more: square gradients, or take their magnitude" in err
    squared = {name: value.square() for name, value in load_file(base).items() if value.is_floating_point()}
    save_file(squared, tmp_path / "fisher.safetensors")
    words[6] = tmp_path / "fisher.safetensors"
    code, out, _ = negmerge(*words, tmp_path / "o.safetensors", "--buffers", "negate", "--json")
    assert code == 0 and json.loads(out)["bytes_read"] > 0
    record = load_record(tmp_path / "o.safetensors")
    assert record["origin"]["name"].endswith("/member1.safetensors") and record["buffers"] == "negate"
    assert record["weights"]["name"].endswith("/fisher.safetensors")
    first, start, out, w = (load_file(path) for path in (members[0], members[1], tmp_path / "o.safetensors", words[6]))
    name = "bn.running_mean"
    assert (out[name] - (load_file(base)[name] - w[name] * (first[name] - start[name]))).abs().max() < 1e-6
    code, _, err = negmerge(*words, tmp_path / "one", "--as-adapter", 2, "--buffers", "negate")
    assert code == 2 and "--as-adapter holds no running statistics; leave --buffers out" in err
    code, _, err = negmerge("merge", base, members[0], "-o", tmp_path / "p.safetensors", "--buffers", "melt")
    assert code == 2 and "buffers must be keep or negate, got 'melt'" in err
