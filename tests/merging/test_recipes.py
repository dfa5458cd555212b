"""Recipes: sums of terms, by hand and against the plain computation; kept, verified, and refused line by line."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import negmerge
from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.verifying import read_record, verify_model
from pools import drift, make_state

DOCS = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
FIVE = [text for text in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL) if "terms:" in text]
POOL = ("forget-1", "forget-2", "forget-3", "other-1", "other-2", "retain-1", "retain-2")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Files of a base, of one that went on from it, and of members, in the current folder; their states by name."""
    monkeypatch.chdir(tmp_path)
    states = {"base": make_state(0)}
    states["chat"] = drift(states["base"], 50, 0.3)
    states |= {name: drift(states["base"], i) for i, name in enumerate(POOL)}
    for name, state in states.items():
        write_state_dict(tmp_path / f"{name}.safetensors", state)
    return states


def consensus(deltas):
    agree = (deltas > 0).all(0) | (deltas < 0).all(0)
    return torch.where(agree, mean(deltas), torch.zeros((), dtype=deltas.dtype))


def mean(deltas):
    total = torch.zeros_like(deltas[0])
    for delta in deltas:
        total = total + delta
    return total / len(deltas)


def ties(deltas, density):
    flat = deltas.reshape(len(deltas), -1)
    count = flat.shape[1]
    rank = min(count, max(1, int(density * count + 1e-9)))
    cut = flat.abs().sort(dim=1, descending=True).values[:, rank - 1 : rank]
    kept = torch.where(flat.abs() >= cut, flat, 0.0)
    sign = torch.zeros_like(flat[0])
    for row in kept:
        sign = sign + row
    agrees = (kept.sign() == sign.sign()) & (sign != 0)
    total, voters = torch.zeros_like(sign), torch.zeros_like(sign)
    for row, has in zip(kept, agrees, strict=True):
        total, voters = total + torch.where(has, row, 0.0), voters + has
    return (total / voters.clamp(min=1)).reshape(deltas.shape[1:])


def weighted(deltas, weights):
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total = total + weight * delta
    return total


# base, and for each term its sign and α, members, origin, and the method on deltas [N, …]
SUMS = [
    ("base", [(-0.9, ["forget-1", "forget-2", "forget-3"], "base", consensus)]),
    ("base", [(1.0, ["retain-1", "retain-2"], "base", lambda deltas: weighted(deltas, [0.6, 0.4]))]),
    (
        "base",
        [
            (-0.9, ["forget-1", "forget-2"], "base", consensus),
            (-0.5, ["other-1", "other-2"], "base", consensus),
        ],
    ),
    ("chat", [(-0.8, ["forget-1", "forget-2"], "base", consensus)]),
    (
        "base",
        [
            (-1.0, ["forget-1", "forget-2", "forget-3"], "base", lambda deltas: ties(deltas, 0.3)),
            (0.3, ["retain-1", "retain-2"], "base", mean),
        ],
    ),
]


def naive(states, base, terms, dtype=None):
    """The sum of whole tensors in memory, written as the formula."""
    result = {}
    for name, value in states[base].items():
        if not value.is_floating_point() or "running_" in name or not value.numel():
            keeps = dtype is None or not value.is_floating_point()
            result[name] = value if keeps else value.to(dtype)
            continue
        work = torch.float64 if value.dtype == torch.float64 else torch.float32
        total = value.to(work)
        for scale, members, origin, method in terms:
            start = states[origin][name].to(work)
            step = method(torch.stack([states[m][name].to(work) - start for m in members])) * abs(scale)
            total = total + step if scale > 0 else total - step
        result[name] = total.to(dtype or value.dtype)
    return result


def same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_the_page_has_five_recipes():
    assert len(FIVE) == len(SUMS) == 5


@pytest.mark.parametrize(("recipe", "terms"), zip(FIVE, SUMS, strict=True))
@pytest.mark.parametrize("compiled", [True, False])
def test_the_recipes_of_the_page_are_the_sums_that_they_say(models, monkeypatch, recipe, terms, compiled):
    monkeypatch.setattr(compiling, "AVAILABLE", compiled and compiling.AVAILABLE)
    Path("recipe.yaml").write_text(recipe)
    report = negmerge.merge_recipe("recipe.yaml", "out.safetensors")
    same(load_file("out.safetensors"), naive(models, *terms))
    assert [(term.add, term.alpha) for term in report.terms] == [(scale > 0, abs(scale)) for scale, *_ in terms[1]]
    assert verify_model(Path("out.safetensors")).count == 3


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("workers", [1, 3])
def test_streamed_equals_naive_in_every_dtype(models, dtype, workers):
    recipe = {**yaml.safe_load(FIVE[4]), "dtype": dtype}
    negmerge.merge_recipe(recipe, "out.safetensors", workers=workers)
    same(load_file("out.safetensors"), naive(models, *SUMS[4], dtype=getattr(torch, dtype)))


def test_by_hand(tmp_path):
    for name, values in {"b": [1.0, 2.0], "o": [0.0, 1.0], "m": [2.0, 1.0], "n": [4.0, 0.0]}.items():
        save_file({"w": torch.tensor(values)}, tmp_path / f"{name}.safetensors")
    save_file({"module.w": torch.tensor([0.5, 2.0])}, tmp_path / "w.safetensors")
    place = {name: tmp_path / f"{name}.safetensors" for name in "bomnw"}
    recipe = {
        "base": place["b"],
        "terms": [
            {
                "members": [place["m"], place["n"]],
                "alpha": 2,
                "weights": place["w"],
            },  # mean of (1, −1), (3, −2): (2, 0)
            {"members": [place["m"]], "origin": place["o"], "sign": "+", "alpha": 0.5},  # (2, 0)
        ],
    }
    recipe["terms"][0]["method"] = "uniform"  # (2, −1.5), times w: (1, −3), times 2: (2, −6)
    negmerge.merge_recipe(recipe, tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors")["w"].tolist() == [1 - 2 + 1, 2 + 6 + 0]


def test_one_term_is_what_the_command_line_merges(models):
    negmerge.merge_recipe(yaml.safe_load(FIVE[0]), "a.safetensors")
    merge_checkpoints("base.safetensors", [f"forget-{i}.safetensors" for i in (3, 1, 2)], "b.safetensors", alpha=0.9)
    same(load_file("a.safetensors"), load_file("b.safetensors"))
    merge_checkpoints(
        "chat.safetensors",
        ["forget-2.safetensors", "forget-1.safetensors"],
        "c.safetensors",
        origin="base.safetensors",
        alpha=0.8,
    )
    negmerge.merge_recipe(yaml.safe_load(FIVE[3]), "d.safetensors")
    same(load_file("c.safetensors"), load_file("d.safetensors"))
    assert read_record(Path("c.safetensors"))["origin"]["name"].endswith("/base.safetensors")


@pytest.mark.parametrize("out", ["one.safetensors", "folder"])
def test_the_recipe_is_kept_and_makes_the_same_bytes(models, out):
    Path("mine.yml").write_text(f"# a comment\n{FIVE[4]}exclude: ['^head']\n")
    negmerge.merge_recipe("mine.yml", out)
    kept = Path(out, "recipe.yaml") if out == "folder" else Path("one.recipe.yaml")
    again = f"again-{out}"
    negmerge.merge_recipe(kept, again)
    for file in Path(out).iterdir() if out == "folder" else [Path(out)]:
        assert file.read_bytes() == (Path(again) / file.name if out == "folder" else Path(again)).read_bytes()
    record = read_record(Path(out))
    assert len(record["terms"]) == 2 and record["terms"][1]["operation"] == "add"
    assert verify_model(Path(out)).sha256.keys() >= {kept.name}
    kept.write_text(kept.read_text() + "# changed\n")
    with pytest.raises(InputError, match=rf"{kept.name} was changed"):
        verify_model(Path(out))


def test_a_kept_recipe_is_replaced_only_where_negmerge_wrote_it(models):
    recipe = yaml.safe_load(FIVE[0])
    negmerge.merge_recipe(recipe, "out.safetensors")
    Path("out.safetensors").unlink()
    negmerge.merge_recipe(recipe, "out.safetensors")  # the same recipe may lie there
    Path("out.safetensors").unlink()
    changed = {**recipe, "exclude": ["^head"]}
    with pytest.raises(InputError, match=r"out\.recipe\.yaml exists; choose another OUT, or replace it with"):
        negmerge.merge_recipe(changed, "out.safetensors")
    negmerge.merge_recipe(changed, "out.safetensors", overwrite=True)
    assert "^head" in Path("out.recipe.yaml").read_text()
    merge_checkpoints("base.safetensors", ["forget-1.safetensors"], "out.safetensors", overwrite=True)
    assert not Path("out.recipe.yaml").exists()  # it was that of the model before
    Path("out.recipe.yaml").write_text("my own\n")
    with pytest.raises(InputError, match="was not written by negmerge, so --overwrite leaves it alone"):
        negmerge.merge_recipe(recipe, "out.safetensors", overwrite=True)
    assert Path("out.recipe.yaml").read_text() == "my own\n"


def test_each_file_is_opened_and_hashed_once(models, monkeypatch):
    opened = []
    plain = os.open

    def counting(path, *rest, **more):
        opened.append(str(path))
        return plain(path, *rest, **more)

    monkeypatch.setattr(os, "open", counting)
    member = {"members": ["forget-1.safetensors", "forget-2.safetensors"]}
    once = {"base": "base.safetensors", "terms": [member]}
    negmerge.merge_recipe(once, "a.safetensors")
    first = opened.count("forget-1.safetensors")
    opened.clear()
    twice = [member, {**member, "method": "uniform", "sign": "+"}, {**member, "method": "magmax"}]
    negmerge.merge_recipe({**once, "terms": twice}, "b.safetensors")
    samples = 2  # of each term, where copies are looked for
    assert opened.count("forget-1.safetensors") <= first + samples
    terms = read_record(Path("b.safetensors"))["terms"]
    assert len({json.dumps(term["members"]) for term in terms}) == 1
    assert terms[0]["members"][0]["hash"] == read_record(Path("a.safetensors"))["terms"][0]["members"][0]["hash"]


def test_the_order_of_terms_and_members_in_the_file_of_a_sum(models):
    """Members are summed by their paths, whatever their order; a sum of terms is the same but for rounding."""
    recipe = yaml.safe_load(FIVE[2])
    outs = []
    for i, order in enumerate(itertools.permutations(recipe["terms"])):
        turned = [{**term, "members": term["members"][::-1]} for term in order]
        negmerge.merge_recipe({**recipe, "terms": turned}, f"{i}.safetensors")
        outs.append(load_file(f"{i}.safetensors"))
    same(outs[0], naive(models, *SUMS[2]))
    for name, value in outs[0].items():
        torch.testing.assert_close(outs[1][name], value)


def test_every_mistake_is_a_line(models):
    recipe = {
        "base": 3,
        "term": [],
        "dtype": "int8",
        "include": ["("],
        "terms": [
            {"member": ["a"], "alpha": "much", "method": "consensu"},
            {"members": ["b"], "settings": {"treshold": 2}, "sign": "minus"},
            {"members": []},
            "c",
        ],
    }
    with pytest.raises(InputError) as caught:
        negmerge.merge_recipe(recipe, "out.safetensors")
    text = "\n".join(caught.value.lines)
    for line in (
        "recipe: base must be a path, got 3",
        "recipe: it does not take 'term' (did you mean 'terms'?)",
        "dtype must be base, float32, float16, bfloat16 or float64, got 'int8'",
        "--include '(' is not a regular expression",
        "term 1: members is missing",
        "term 1: alpha must be a finite number, got 'much'",
        "term 1: it does not take 'member' (did you mean 'members'?)",
        "term 1: unknown method 'consensu' (did you mean 'consensus'?)",
        "term 2: method consensus: it does not take 'treshold' (did you mean 'threshold'?)",
        "term 2: sign must be + or -, got 'minus'",
        "term 3: members is empty",
        "term 4: it must be a mapping with members, method, alpha, …, got 'c'",
    ):
        assert line in text, line
    assert not Path("out.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: b\nterms:\n  - members: [a]\n    sign: -\n", r'line 4 is not YAML: .*write sign: "-"'),
        ("base: [b\n", "is not YAML"),
        ("- base\n", "is no recipe, which is a mapping with base and terms"),
        ("base: b\nbase: c\n", "'base' stands twice"),
        ("base: base.safetensors\nterms: []\n", "terms is empty: give at least one"),
        ("base: base.safetensors\n", "terms is missing: the summands"),
        ("base: base.safetensors\nterms: {members: [a]}\n", "terms must be a list, got .*: the summands"),
        ("base: b\nterms: [{members: [a], settings: 3}]\n", "settings must be a mapping of names to values, got 3"),
        ("base: b\nterms: [{members: [a], weights: [1]}]\n", "weights must be a path, got .*; numbers for members are"),
        (
            "base: base.safetensors\nterms: [{members: [none.safetensors]}]\n",
            "none.safetensors: no such file or folder",
        ),
        ("base: base.safetensors\nterms: [{members: [base.safetensors]}]\n", "is the base itself; give the fine-tuned"),
        (
            "base: chat.safetensors\nterms: [{members: [base.safetensors], origin: base.safetensors}]\n",
            "is the origin itself; give the fine-tuned",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(models, text, message):
    Path("r.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        negmerge.merge_recipe("r.yaml", "out.safetensors")
    assert "\n" not in str(caught.value) and not Path("out.safetensors").exists()


def test_an_origin_must_fit_the_base_in_what_merges(models):
    small = {name: value for name, value in models["base"].items() if name != "head.weight"}
    write_state_dict(Path("small.safetensors"), {**small, "head.weight": torch.ones(2, 7)})
    tuned = drift(read_state_dict("small.safetensors"), 9)
    write_state_dict(Path("tuned.safetensors"), tuned)
    how = {"origin": "small.safetensors", "method": "task-arithmetic"}
    with pytest.raises(InputError, match=r"head.weight has shape \[2, 7\], in the base \[3, 7\]") as caught:
        merge_checkpoints("base.safetensors", ["tuned.safetensors"], "out.safetensors", **how)
    assert "small.safetensors: head.weight" in str(caught.value)
    merge_checkpoints("base.safetensors", ["tuned.safetensors"], "out.safetensors", exclude=["^head"], **how)
    out = load_file("out.safetensors")
    delta = tuned["stem.weight"] - small["stem.weight"]
    assert torch.equal(out["stem.weight"], models["base"]["stem.weight"] - delta)
    assert torch.equal(out["head.weight"], models["base"]["head.weight"])


def test_the_base_may_be_a_member_of_another_origin(models):
    """Going on beyond a model: chat + 0.5·(chat − base)."""
    recipe = {"base": "chat.safetensors", "terms": [{"members": ["chat.safetensors"], "origin": "base.safetensors"}]}
    recipe["terms"][0] |= {"sign": "+", "alpha": 0.5}
    negmerge.merge_recipe(recipe, "out.safetensors")
    chat, base = models["chat"]["stem.bias"], models["base"]["stem.bias"]
    assert torch.equal(load_file("out.safetensors")["stem.bias"], chat + 0.5 * (chat - base))


@pytest.mark.filterwarnings("ignore")
def test_adapters_and_models_in_one_recipe(tmp_path):
    """A term of adapters merges what they touch; a term of models everything."""
    adapters = pytest.importorskip("adapters")
    torch.manual_seed(4)
    model = adapters.llama()
    model.save_pretrained(tmp_path / "base")
    adapters.adapted(tmp_path / "a", model, seed=1, target_modules=["q_proj"])
    base = read_state_dict(tmp_path / "base")
    write_state_dict(tmp_path / "m.safetensors", drift(base, 1))
    terms = [{"members": [tmp_path / "a"]}, {"members": [tmp_path / "m.safetensors"], "sign": "+", "alpha": 0.5}]
    report = negmerge.merge_recipe({"base": tmp_path / "base", "terms": terms}, tmp_path / "out")
    merge_checkpoints(tmp_path / "base", [tmp_path / "a"], tmp_path / "first")
    member, first = drift(base, 1), read_state_dict(tmp_path / "first")
    for name, value in read_state_dict(tmp_path / "out").items():
        assert torch.equal(value, first[name] + 0.5 * (member[name] - base[name]))
    assert report.terms[0].elements < report.terms[1].elements == report.merged_elements
