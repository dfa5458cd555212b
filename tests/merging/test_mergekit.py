"""mergekit's YAML: its published formulas by hand, and every key that has no counterpart refused by its name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import negmerge
from negmerge.errors import InputError
from negmerge.merging.mergekit import from_mergekit

BASE = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 2.0]])
DELTAS = {
    "a": torch.tensor([[1.0, -0.5, 0.25, 2.0], [-3.0, 0.75, 0.5, -1.0]]),
    "b": torch.tensor([[-2.0, -1.0, 0.5, 1.0], [1.5, 0.25, -4.0, -1.75]]),
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"w": BASE}, "base.safetensors")
    for name, delta in DELTAS.items():
        save_file({"w": BASE + delta}, f"{name}.safetensors")


def config(method, weights=(0.5, 0.25), densities=(None, None), **more):
    models = [
        {
            "model": f"{name}.safetensors",
            "parameters": {"weight": weight, **({} if density is None else {"density": density})},
        }
        for name, weight, density in zip("ab", weights, densities, strict=True)
    ]
    return {"merge_method": method, "base_model": "base.safetensors", "models": models, **more}


def merged(content):
    negmerge.merge_recipe(content, "out.safetensors", overwrite=True)
    return load_file("out.safetensors")["w"]


@pytest.mark.parametrize("normalize", [None, False, True])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_task_arithmetic(models, normalize, scale):
    parameters = {"normalize": normalize, "lambda": scale, "int8_mask": True}
    given = {key: value for key, value in parameters.items() if value is not None}
    expected = (0.5 * DELTAS["a"] + 0.25 * DELTAS["b"]) * (scale or 1) / (0.75 if normalize else 1)
    torch.testing.assert_close(merged(config("task_arithmetic", parameters=given)), BASE + expected)


def test_the_base_among_the_models_and_parameters_of_all(models):
    content = config("task_arithmetic", parameters={"weight": 2.0})
    content["models"] = [{"model": "base.safetensors"}, {"model": "a.safetensors"}]
    assert torch.equal(merged(content), BASE + 2 * DELTAS["a"])


@pytest.mark.parametrize("density", [0.5, 0.25, None])
def test_ties(models, density):
    """Trim to the largest, elect signs by mass, average those who have it, times λ: by the definition."""
    count = 8 if density is None else int(8 * density)
    trimmed = []
    for delta in DELTAS.values():
        flat = torch.zeros(8)
        top = delta.flatten().abs().topk(count).indices
        flat[top] = delta.flatten()[top]
        trimmed.append(flat.reshape(2, 4))
    stacked = torch.stack(trimmed)
    sign = stacked.sum(0).sign()
    mask = (stacked.sign() == sign) & (sign != 0)
    expected = (stacked * mask).sum(0) / mask.sum(0).clamp(min=1)
    content = config("ties", weights=(0.4, 0.4), densities=(density, density), parameters={"lambda": 0.5})
    torch.testing.assert_close(merged(content), BASE + 0.5 * expected)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_dare_linear(models, rescale, normalize):
    """Weights are λ·wᵢ times δᵢ or 0; with density 1 nothing is drawn."""
    parameters = {"rescale": rescale, "normalize": normalize, "lambda": 2.0}
    whole = merged(config("dare_linear", densities=(1, None), parameters=parameters))
    scale = 2.0 / (0.75 if normalize else 1.0)
    torch.testing.assert_close(whole, BASE + scale * (0.5 * DELTAS["a"] + 0.25 * DELTAS["b"]))
    parameters["normalize"] = False
    only = config("dare_linear", weights=(0.5, 0.0), densities=(0.5, 1.0), parameters=parameters, random_seed=3)
    found = (merged(only) - BASE) / DELTAS["a"]
    kept = 2.0 * 0.5 * (2.0 if rescale else 1.0)
    assert all(min(abs(value), abs(value - kept)) < 1e-5 for value in found.flatten().tolist())


def test_each_model_of_dare_linear_draws_for_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"w": torch.zeros(1000)}, "base.safetensors")
    for i, name in enumerate("ab"):
        save_file({"w": torch.full((1000,), 1.0 + i)}, f"{name}.safetensors")
    content = config("dare_linear", weights=(1, 1), densities=(0.5, 0.25), parameters={"rescale": False})
    found = merged(content)
    shares = [float((found == value).float().mean()) for value in (0.0, 1.0, 2.0, 3.0)]
    assert sum(shares) == pytest.approx(1) and shares == pytest.approx([0.375, 0.375, 0.125, 0.125], abs=0.05)
    assert torch.equal(found, merged(content)) and not torch.equal(found, merged({**content, "random_seed": 1}))


def test_dare_ties(models):
    parameters = {"normalize": True, "density": 1.0}
    total = DELTAS["a"] + DELTAS["b"]
    stacked = torch.stack(list(DELTAS.values()))
    mask = (stacked.sign() == total.sign()) & (total != 0)
    expected = (stacked * mask).sum(0) / mask.sum(0).clamp(min=1)
    torch.testing.assert_close(merged(config("dare_ties", weights=(0.5, 0.5), parameters=parameters)), BASE + expected)
    recipe = from_mergekit(config("dare_ties", weights=(1, 1), densities=(0.5, 0.5), parameters={"normalize": True}))
    assert recipe["terms"] == [
        {
            "members": ["a.safetensors", "b.safetensors"],
            "method": "dare",
            "settings": {"density": 0.5, "rescale": True, "mean": "elected"},
            "sign": "+",
            "alpha": 1.0,
            "seed": 0,
        }
    ]


def test_the_dtype_is_that_of_out(models):
    content = config("task_arithmetic", dtype="float32", out_dtype="bfloat16")
    assert merged(content).dtype == torch.bfloat16
    assert merged(config("task_arithmetic", dtype="float16")).dtype == torch.float16
    kept = Path("out.recipe.yaml").read_text()
    assert "task-arithmetic" in kept and "merge_method" not in kept


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (config("linear"), "merge_method: 'linear' is none of task_arithmetic, dare_linear, ties, dare_ties"),
        (config("task_arithmetic", slices=[]), "slices: negmerge merges whole models: list them under models"),
        (config("task_arithmetic", modules={}), "modules: negmerge merges whole models"),
        (
            config("task_arithmetic", tokenizer_source="union"),
            "tokenizer_source: OUT keeps the tokenizer of",
        ),
        (config("task_arithmetic", chat_template="auto"), "chat_template: OUT keeps the chat template"),
        (config("task_arithmetic", dtypes="x"), r"dtypes \(did you mean 'dtype'\?\) is not read"),
        (config("task_arithmetic", dtype="int8"), "dtype must be float32, float16, bfloat16 or float64, got 'int8'"),
        (config("task_arithmetic", weights=([0.1, 0.9], 1)), r"models\[0\].parameters.weight: \[0.1, 0.9\] differs"),
        (
            config("task_arithmetic", weights=(1, [{"filter": "mlp", "value": 1}])),
            r"models\[1\].parameters.weight: .* give one number, or write a recipe of negmerge",
        ),
        (config("task_arithmetic", weights=("much", 1)), r"models\[0\].parameters.weight must be a number, got 'much'"),
        (config("task_arithmetic", densities=(0.5, 1)), "density: task_arithmetic drops nothing"),
        (config("ties", densities=(0.5, 0.5)), "weight: ties is read with one weight above 0 for all models"),
        (config("ties", weights=(1, 1), densities=(0.5, 0.2)), "density: ties is read with one density for all models"),
        (
            config("ties", weights=(1, 1), parameters={"normalize": False}),
            r"normalize: ties is read as the mean of those that agree; write parameters: \{normalize: true\}",
        ),
        (config("dare_ties", weights=(1, 1)), "normalize: dare_ties is read as the mean of those that agree"),
        (
            config("ties", parameters={"gamma": 0.1}),
            "parameters.gamma: write a recipe of negmerge with",
        ),
        (config("ties", parameters={"normalize": "maybe"}), "parameters.normalize must be true or false, got 'maybe'"),
        (config("ties", parameters=[1]), r"parameters must be a mapping, got \[1\]"),
        ({"merge_method": "ties", "models": []}, r"models must be a list of models, got \[\]"),
        ({**config("ties"), "base_model": None}, "base_model must be a path or a hub id, got None"),
        ({**config("ties"), "models": ["a"]}, r"models\[0\].model must be a path or a hub id, got 'a'"),
        (
            {**config("task_arithmetic"), "models": [{"model": "a+lora", "parameters": {"weight": 1}}]},
            r"models\[0\].model: give the adapter itself in the place of a\+lora",
        ),
        (
            {**config("task_arithmetic"), "models": [{"model": "a"}]},
            r"models\[0\].parameters.weight is missing",
        ),
        (
            {**config("task_arithmetic"), "models": [{"model": "base.safetensors"}]},
            "models: there is none beside base_model",
        ),
        (config("dare_linear", random_seed="x"), "random_seed must be a whole number, got 'x'"),
        (config("ties", weights=(1, 1), densities=(2, 2)), "density must be a number above 0 and at most 1, got 2.0"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name(models, tmp_path, content, message):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        negmerge.merge_recipe(content, "out.safetensors")
    assert sorted(tmp_path.iterdir()) == before
