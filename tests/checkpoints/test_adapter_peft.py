"""Adapters of tiny real models, as PEFT saves them, against what PEFT itself makes of the model when it merges them."""

import pytest
import torch
from safetensors.torch import load_file

from adapters import CASES, adapted, llama, vit
from negmerge.checkpoints import open_adapter, open_checkpoint, read_state_dict
from negmerge.merging.engine import merge_checkpoints

peft = pytest.importorskip("peft")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_the_change_is_what_peft_merges(tmp_path, case):
    make, config = CASES[case]
    torch.manual_seed(1)
    model = make()
    # transformers writes some models under other names than the modules have that an adapter names
    place = tmp_path / ("base.pt" if make is vit else "base")
    torch.save(model.state_dict(), place) if make is vit else model.save_pretrained(place)
    merged = adapted(tmp_path / "adapter", model, **config).merge_and_unload().state_dict()
    base = open_checkpoint(place)
    bound = open_adapter(tmp_path / "adapter", tmp_path / "adapter").bind(base)
    changed = []
    for name in base.names:
        expected = (merged[name] - base.read(name).reshape(base.shape(name))).flatten()
        found = bound.read_delta(name, 0, len(expected))
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        if expected.any():
            changed.append(name)
            assert found.any()
    assert changed and set(changed) == set(bound.touched), bound.touched
    base.close()


@pytest.mark.filterwarnings("ignore")
def test_a_pool_of_different_adapters_is_the_pool_of_what_they_make(tmp_path):
    """Consensus on the effective change: adapters merge as the full models that PEFT makes of them."""
    torch.manual_seed(2)
    model = llama()
    model.save_pretrained(tmp_path / "base")
    configs = [
        {"r": 2, "target_modules": ["q_proj", "v_proj"]},
        {"r": 5, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
        {"r": 3, "target_modules": ["v_proj", "q_proj"], "alpha_pattern": {"q_proj": 2}},
    ]
    adapters, full = [], []
    for i, config in enumerate(configs):
        adapters.append(tmp_path / f"a{i}")
        full.append(tmp_path / f"f{i}")
        adapted(adapters[-1], model, seed=i, **config).merge_and_unload().save_pretrained(full[-1])
    one = merge_checkpoints(tmp_path / "base", adapters, tmp_path / "a.safetensors")
    two = merge_checkpoints(tmp_path / "base", full, tmp_path / "f.safetensors")
    assert 0 < one.kept < one.merged_elements < one.elements
    assert abs(one.kept - two.kept) < 0.01 * one.kept  # differences that round to zero in the full models
    found, expected = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "f.safetensors")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_both_names_of_tied_weights_change(tmp_path):
    """A .pt base holds tied weights twice; a strict load takes the last, so both must change."""
    model = llama(tied=True)
    torch.save(model.state_dict(), tmp_path / "base.pt")
    adapted(tmp_path / "a", model, target_modules=["embed_tokens"])
    merge_checkpoints(tmp_path / "base.pt", [tmp_path / "a"], tmp_path / "o.safetensors")
    found = load_file(tmp_path / "o.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    base = read_state_dict(tmp_path / "base.pt")
    assert not torch.equal(found["lm_head.weight"], base["lm_head.weight"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"trainable_token_indices": [1, 2]}, "uses trainable_token_indices"),
        ({"target_parameters": ["q_proj.weight"]}, "uses target_parameters"),
        ({"layer_replication": [(0, 2), (1, 2)]}, "uses layer_replication"),
    ],
)
def test_what_is_no_product_is_refused_by_name(tmp_path, config, message):
    from negmerge.errors import InputError

    model = llama()
    model.save_pretrained(tmp_path / "base")
    adapted(tmp_path / "a", model, **{"target_modules": ["v_proj"], **config})
    with pytest.raises(InputError, match=message):
        merge_checkpoints(tmp_path / "base", [tmp_path / "a"], tmp_path / "o.safetensors")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig"])
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path, kind):
    from negmerge.errors import InputError

    model = llama()
    model.save_pretrained(tmp_path / "base")
    more = {"feedforward_modules": []} if kind == "IA3Config" else {}
    peft.get_peft_model(model, getattr(peft, kind)(target_modules=["v_proj"], **more)).save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match=f"is an adapter of kind {kind.removesuffix('Config').upper()}, only LORA"):
        merge_checkpoints(tmp_path / "base", [tmp_path / "a"], tmp_path / "o.safetensors")
