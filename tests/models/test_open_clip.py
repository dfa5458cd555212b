"""open_clip's names and CLIPModel's are two names of the same tensors; authors' state dicts merge as they are."""

import json

import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints
from negmerge.tasks.zero_shot.open_clip import clip_config, convert_open_clip, from_open_clip, to_open_clip


@pytest.fixture(scope="module")
def model():
    """Two layers of width 128 (two heads of 64) for images, one of width 64 for texts."""
    shared = {"hidden_act": "gelu"}
    vision = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = {"vocab_size": 50, "max_position_embeddings": 9, "bos_token_id": 48, "eos_token_id": 49, "pad_token_id": 49}
    config = CLIPConfig(
        text_config={**text, **shared, **ends},
        vision_config={**vision, **shared, "image_size": 24, "patch_size": 8},
        projection_dim=40,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CLIPModel(config).eval()
        for parameter in made.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made


def test_there_and_back(model):
    state = model.state_dict()
    theirs = to_open_clip(state)
    back = from_open_clip({f"module.{name}": value for name, value in theirs.items()})
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in state)
    assert sum(value.numel() for value in theirs.values()) == sum(value.numel() for value in state.values())
    assert theirs["visual.transformer.resblocks.1.attn.in_proj_weight"].shape == (384, 128)
    assert theirs["visual.proj"].shape == (128, 40) and theirs["text_projection"].shape == (64, 40)


def test_the_fused_matrix_is_that_of_torchs_own_attention(model):
    theirs = to_open_clip(model.state_dict())
    stem = "visual.transformer.resblocks.0.attn."
    attention = nn.MultiheadAttention(128, 2, batch_first=True)
    attention.load_state_dict({n.removeprefix(stem): v for n, v in theirs.items() if n.startswith(stem)})
    x = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(1))
    ours = model.vision_model.encoder.layers[0].self_attn(x)[0]
    assert torch.allclose(attention(x, x, x, need_weights=False)[0], ours, atol=1e-5)


def test_a_checkpoint_becomes_a_folder_that_transformers_loads(model, tmp_path):
    torch.save(to_open_clip(model.state_dict()), tmp_path / "open_clip.pt")
    with pytest.raises(InputError, match=r"vision tower of width 128: .*give vision_heads \(--vision-heads\)"):
        convert_open_clip(tmp_path / "open_clip.pt", tmp_path / "clip", activation="gelu", text_heads=1)
    with pytest.raises(InputError, match="text_heads must divide the tower's width 64, got 5"):
        convert_open_clip(tmp_path / "open_clip.pt", tmp_path / "clip", activation="gelu", vision_heads=2, text_heads=5)
    assert not (tmp_path / "clip").exists()
    convert_open_clip(tmp_path / "open_clip.pt", tmp_path / "clip", activation="gelu", vision_heads=2, text_heads=1)
    loaded = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([[48, 3, 4, 49], [48, 7, 49, 49]])
    with torch.no_grad():
        ours, theirs = (m(input_ids=tokens, pixel_values=pixels).logits_per_image for m in (loaded, model))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert len(json.loads((tmp_path / "clip" / "preprocessor_config.json").read_text())["image_mean"]) == 3


@pytest.mark.parametrize(("width", "text", "heads"), [
    (768, 512, (12, 8)), (1024, 768, (16, 12)), (1280, 1024, (16, 16)), (1408, 1024, (16, 16)), (1664, 1280, (16, 20)),
])  # fmt: skip
def test_the_heads_of_open_clips_models(width, text, heads):
    """ViT-B, ViT-L, ViT-H-14, ViT-g-14 and ViT-bigG-14, by open_clip's configs of them; tensors fit any number."""
    layer = "encoder.layers.0.mlp.fc1.weight"
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (257, width),
        "text_model.embeddings.position_embedding.weight": (77, text),
        "text_model.embeddings.token_embedding.weight": (49408, text),
        f"vision_model.{layer}": (4, width), f"text_model.{layer}": (4, text), "visual_projection.weight": (9, width),
    }  # fmt: skip
    config = clip_config({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, "gelu")
    assert tuple(config[f"{tower}_config"]["num_attention_heads"] for tower in ("vision", "text")) == heads


def test_what_is_no_open_clip_model_is_refused(model, tmp_path):
    with pytest.raises(InputError, match=r"1 tensors are not those of an open_clip CLIP with a ViT:\n  visual.layer1"):
        from_open_clip({**to_open_clip(model.state_dict()), "visual.layer1.0.conv1.weight": torch.ones(1)})
    with pytest.raises(InputError, match="activation must be gelu or quick_gelu, got 'relu'"):
        convert_open_clip(tmp_path / "x.pt", tmp_path / "y", activation="relu")


def test_state_dicts_of_an_image_encoder_with_split_projections_merge(model, tmp_path):
    """As published for task vectors: names of their own, query, key and value apart, frozen parts among them."""
    stem = "image_encoder.model.visual.transformer.resblocks.0.attn."

    def state(seed):
        draw = torch.Generator().manual_seed(seed)
        names = [f"{stem}{part}.{kind}" for part in ("q_proj", "k_proj", "v_proj") for kind in ("weight", "bias")]
        moved = {n: torch.randn((8, 8) if n.endswith("weight") else (8,), generator=draw) for n in names}
        return {**moved, "image_encoder.model.logit_scale": torch.tensor(4.6)}

    for name, seed in (("base", 0), ("a", 1), ("b", 2)):
        torch.save(state(seed), tmp_path / f"{name}.pt")
    members = [tmp_path / "a.pt", tmp_path / "b.pt"]
    report = merge_checkpoints(tmp_path / "base.pt", members, tmp_path / "out.safetensors", alpha=0.5)
    merged = read_state_dict(tmp_path / "out.safetensors")
    base, a, b = (state(seed) for seed in (0, 1, 2))
    for name, value in merged.items():
        first, second = a[name] - base[name], b[name] - base[name]
        agreed = torch.where(first * second > 0, (first + second) / 2, torch.zeros(()))
        assert torch.allclose(value, base[name] - 0.5 * agreed, atol=1e-6)
    assert 0 < report.kept < report.merged_elements == 3 * (64 + 8) + 1
