"""Tensors in groups, from names and shapes alone."""

import pytest

from negmerge.tasks.image_classification.families import cifar_resnet, small_cnn
from negmerge.unlearning.layer_groups import layer_groups


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def test_a_residual_network_has_its_stages():
    shapes = shapes_of(cifar_resnet.build(cifar_resnet.Settings(depth=20), 10, (3, 32, 32)))
    groups = layer_groups(shapes)
    assert list(groups) == ["stem", "layer1", "layer2", "layer3", "head", "norms"]
    assert groups["stem"] == ["conv1.weight"] and groups["head"] == ["linear.weight", "linear.bias"]
    assert sorted(name for names in groups.values() for name in names) == sorted(shapes)
    assert all(".bn" in name or name.startswith("bn") for name in groups["norms"])


def test_without_numbered_blocks_every_module_is_one():
    shapes = shapes_of(small_cnn.build(small_cnn.Settings(width=8), 10, (1, 8, 8)))
    groups = layer_groups(shapes)
    assert next(iter(groups)) == "stem" and "head" in groups
    assert sorted(name for names in groups.values() for name in names) == sorted(shapes)


def test_many_blocks_are_joined_to_runs_of_neighbours():
    shapes = {"model.embed_tokens.weight": (9, 4)}
    for i in range(10):
        shapes |= {f"model.layers.{i}.mlp.up.weight": (4, 4), f"model.layers.{i}.norm.weight": (4,)}
    shapes |= {"model.norm.weight": (4,), "lm_head.weight": (9, 4)}
    groups = layer_groups(shapes, 3)
    runs = [name for name in groups if name not in ("stem", "head", "norms")]
    assert runs == [
        "model.layers.0 … model.layers.2",
        "model.layers.3 … model.layers.5",
        "model.layers.6 … model.layers.9",
    ]
    assert groups["stem"] == ["model.embed_tokens.weight"] and groups["head"] == ["lm_head.weight"]
    assert len(groups["norms"]) == 11


@pytest.mark.parametrize("most", [1, 2, 20])
def test_every_name_is_in_one_group(most):
    shapes = {f"blocks.{i}.attn.weight": (2, 2) for i in range(7)} | {"head.weight": (2, 2), "head.bias": (2,)}
    found = [name for names in layer_groups(shapes, most).values() for name in names]
    assert sorted(found) == sorted(shapes) and len(layer_groups(shapes, most)) == min(most, 7) + 1


def test_a_model_of_norms_alone_is_one_group():
    assert layer_groups({"bn.weight": (3,), "bn.bias": (3,)}) == {"norms": ["bn.weight", "bn.bias"]}
