"""LoRA adapters against PEFT's own arithmetic, and the kinds that are refused."""

import json

import pytest
import torch

from negmerge.checkpoints import open_adapter, write_state_dict
from negmerge.checkpoints.memory import StateDict
from negmerge.errors import InputError

BASE = {
    "model.up.weight": torch.zeros(6, 4),
    "model.square.weight": torch.zeros(4, 4),
    "model.conv.weight": torch.zeros(6, 2, 3, 3),
    "model.up.bias": torch.ones(6),
    "head.weight": torch.ones(3, 6),
}


def factors(seed, rows, columns, rank=2):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rank, columns, generator=g), torch.randn(rows, rank, generator=g)


def save(folder, tensors, **config):
    folder.mkdir(exist_ok=True)
    write_state_dict(folder / "adapter_model.safetensors", tensors)
    content = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def bind(folder, base=None):
    from pathlib import Path

    return open_adapter(folder, folder).bind(StateDict(base or BASE, Path("base")))


def lora(module, a, b):
    return {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}


def whole(bound, name):
    shape = bound.shape(name)
    return bound.read_delta(name, 0, torch.Size(shape).numel()).reshape(shape)


def test_the_change_is_scale_times_b_a(tmp_path):
    a, b = factors(0, 6, 4)
    bound = bind(save(tmp_path / "x", lora("model.up", a, b)))
    torch.testing.assert_close(whole(bound, "model.up.weight"), 4.0 * (b @ a))
    assert bound.touched == {"model.up.weight"}
    assert not whole(bound, "head.weight").any()
    assert torch.equal(bound.read_delta("model.up.weight", 5, 17), whole(bound, "model.up.weight").flatten()[5:17])


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"alpha_pattern": {"up": 6}}, 3.0),
        ({"alpha_pattern": {"p": 6}}, 4.0),  # matches whole parts of a name only
        ({"alpha_pattern": {r"model\.u.": 2}}, 1.0),
        ({"r": 64, "rank_pattern": {"up": 2}}, 4.0),  # the rank is that of the factors
    ],
)
def test_scales(tmp_path, config, scale):
    a, b = factors(0, 6, 4)
    bound = bind(save(tmp_path / "x", lora("model.up", a, b), **config))
    torch.testing.assert_close(whole(bound, "model.up.weight"), scale * (b @ a))


def test_layers_stored_the_other_way_round(tmp_path):
    a, b = factors(1, 4, 4)
    bound = bind(save(tmp_path / "x", lora("model.square", a, b), fan_in_fan_out=True))
    torch.testing.assert_close(whole(bound, "model.square.weight"), 4.0 * (b @ a).T)
    a, b = factors(2, 4, 6)
    bound = bind(save(tmp_path / "y", lora("model.up", a, b), fan_in_fan_out=True))
    torch.testing.assert_close(whole(bound, "model.up.weight"), 4.0 * (b @ a).T)


def test_convolutions_embeddings_saved_modules_and_other_prefixes(tmp_path):
    a, b = torch.randn(2, 2, 3, 3), torch.randn(6, 2, 1, 1)
    tensors = lora("model.conv", a, b)
    tensors |= {
        "base_model.model.head.weight": torch.full((3, 6), 3.0),
        "base_model.model.model.up.bias": torch.zeros(6),
        "base_model.model.model.up.lora_embedding_A": torch.ones(2, 6),
        "base_model.model.model.up.lora_embedding_B": torch.arange(8.0).reshape(4, 2),
    }
    bound = bind(save(tmp_path / "x", tensors))
    expected = 4.0 * torch.einsum("or,rihw->oihw", b[:, :, 0, 0], a)
    torch.testing.assert_close(whole(bound, "model.conv.weight"), expected)
    assert whole(bound, "head.weight").unique().tolist() == [2.0]
    assert whole(bound, "model.up.bias").unique().tolist() == [-1.0]
    assert whole(bound, "model.up.weight")[0].tolist() == [4.0, 20.0, 36.0, 52.0]
    short = {name.removeprefix("model."): value for name, value in BASE.items()}
    assert "conv.weight" in bind(tmp_path / "x", short).touched


def test_blocks_do_not_depend_on_how_it_is_cut(tmp_path):
    a, b = factors(3, 700, 130, rank=5)
    bound = bind(save(tmp_path / "x", lora("wide", a, b)), {"wide.weight": torch.zeros(700, 130)})
    everything = bound.read_delta("wide.weight", 0, 91_000)
    parts = [bound.read_delta("wide.weight", start, min(start + 977, 91_000)) for start in range(0, 91_000, 977)]
    assert torch.equal(torch.cat(parts), everything)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"peft_type": "LOHA"}, "is an adapter of kind LOHA, only LORA is read"),
        ({"layer_replication": [[0, 1]]}, "the adapter uses layer_replication, which is not read"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"something_new": 1}, "uses something_new"),
        ({"init_lora_weights": "pissa_niter_4"}, r"its initialisation \(pissa_niter_4\) changed the base"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, config, message):
    folder = save(tmp_path / "x", lora("model.up", *factors(0, 6, 4)), **config)
    with pytest.raises(InputError, match=message):
        bind(folder)


def test_what_does_not_fit_is_listed(tmp_path):
    tensors = lora("model.up", *factors(0, 5, 4)) | lora("model.gone", *factors(0, 6, 4))
    tensors |= {
        "base_model.model.head.lora_A.weight": torch.ones(2, 6),
        "base_model.model.ghost.weight": torch.ones(1),
        "base_model.model.model.up.bias": torch.ones(2),
    }
    with pytest.raises(InputError) as caught:
        bind(save(tmp_path / "x", tensors))
    text = str(caught.value)
    for part in (
        "does not fit the base base in 5 places", "does not give the shape [6, 4] of model.up.weight",
        "model.gone has no place in the base", "head has only factor A", "ghost.weight has no place in the base",
        "model.up.bias has shape [2], model.up.bias has [6]",
    ):  # fmt: skip
        assert part in text


def test_broken_adapters(tmp_path):
    a, b = factors(0, 6, 4)
    with pytest.raises(InputError, match=r"lora_A\.weight holds NaN or Inf"):
        bind(save(tmp_path / "x", lora("model.up", a.fill_(float("nan")), b)))
    (tmp_path / "x" / "adapter_config.json").write_text("[")
    with pytest.raises(InputError, match=r"adapter_config\.json is not JSON"):
        bind(tmp_path / "x")
    (tmp_path / "x" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has an adapter_config.json but none of adapter_model.safetensors"):
        bind(tmp_path / "x")


def test_the_changes_are_those_of_peft(tmp_path):
    peft = pytest.importorskip("peft")
    from pathlib import Path

    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {
            "a": torch.nn.Linear(8, 12),
            "b": torch.nn.Linear(12, 8),
            "c": torch.nn.Conv2d(3, 5, 3),
            "e": torch.nn.Linear(8, 2),
        }
    )
    base = {name: value.detach().clone() for name, value in model.state_dict().items()}
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["a", "b", "c"], modules_to_save=["e"], rank_pattern={"b": 2},
        alpha_pattern={"a": 7}, use_rslora=True, init_lora_weights=False,
    )  # fmt: skip
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        wrapped.base_model.model["e"].modules_to_save["default"].weight.add_(1.0)
    wrapped.save_pretrained(tmp_path / "x")
    merged = wrapped.merge_and_unload().state_dict()
    bound = open_adapter(tmp_path / "x", tmp_path / "x").bind(StateDict(base, Path("base")))
    for name, value in base.items():
        torch.testing.assert_close(whole(bound, name), merged[name] - value, atol=1e-5, rtol=1e-5)
