"""The family clip against transformers itself."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from clip_example import save_tiny_clip
from negmerge import registry
from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.projection.collecting import collect, survey
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict
from negmerge.tasks.zero_shot import files as clip_files
from negmerge.tasks.zero_shot import prompts
from negmerge.tasks.zero_shot.families import clip

PROMPTS = [(("cat", "dog"), ("a photo of a {}.", "art of the {}")), (("1", "2", "3"), None)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGMERGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "negmerge" / "heads"


@pytest.fixture
def tiny(tmp_path):
    return str(tmp_path / "clip"), save_tiny_clip(tmp_path / "clip")


def classifier(path, **settings):
    head = clip.prepare_head(clip.Settings(path=path, **settings), PROMPTS)
    return Classifier("clip", {"path": path, **settings}, 5, (3, 16, 16), heads=(2, 3), head=head)


def with_pretrained(one):
    model = one.build(7)
    model.load_state_dict(clip.pretrained(one.checked))
    return model.eval()


def images(count=6):
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def direct(path, model, pixels):
    """Logits by transformers alone: the mean over templates of normalised text features, normalised again."""
    tokenizer = CLIPTokenizer.from_pretrained(path)
    rows = []
    for names, templates in PROMPTS:
        for name in names:
            texts = [t.format(name) for t in templates or ("a photo of a {}.",)]
            each = [model.get_text_features(**tokenizer([text], return_tensors="pt")).pooler_output for text in texts]
            rows.append(
                functional.normalize(torch.cat([functional.normalize(e, dim=-1) for e in each]).mean(0), dim=-1)
            )
    features = functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    return model.logit_scale.exp() * features @ torch.stack(rows).T


@pytest.mark.parametrize("train", ["vision", "text", "both"])
def test_logits_are_those_of_transformers(tiny, train):
    path, model = tiny
    one = classifier(path, train=train)
    pixels = (images().float() / 255 - 0.5) / 0.25
    assert torch.allclose(one.prepare(images()), pixels, atol=1e-6)
    expected = direct(path, model, pixels)
    assert expected.std() > 0.1
    assert torch.allclose(predict(one, with_pretrained(one), images()), expected, atol=1e-5)


@pytest.mark.parametrize("train", ["vision", "text", "both"])
def test_bf16_ends_before_the_cosines(tiny, train):
    one = classifier(tiny[0], train=train)
    half = replace(one, compute=Compute(precision="bf16"))
    exact = predict(one, with_pretrained(one), images())
    model = with_pretrained(half)
    rounded = predict(half, model, images())
    assert not torch.equal(rounded, exact) and torch.allclose(rounded, exact, atol=0.5)  # the towers are bf16
    assert (rounded != rounded.bfloat16().float()).float().mean() > 0.9  # what is made of their features is not
    if train != "vision":
        with half.compute.autocast("cpu"):
            head = model.train().head()
        assert head.dtype == torch.float32 and (head != head.bfloat16().float()).float().mean() > 0.9


def test_only_the_trained_tower_is_in_the_state(tiny):
    path, _ = tiny
    towers = {
        train: {n.split(".")[0] for n in classifier(path, train=train).build().state_dict()}
        for train in ("vision", "text", "both")
    }
    vision, text = {"vision_model", "visual_projection"}, {"text_model", "text_projection"}
    assert towers == {"vision": vision, "text": text, "both": vision | text}
    whole = CLIPModel.from_pretrained(path)  # what was trained goes back into the model by its names
    state = classifier(path).build(3).state_dict()
    missing, unexpected = whole.load_state_dict(state, strict=False)
    assert not unexpected and all(n.startswith(("text_", "logit_scale")) for n in missing)


def test_the_text_tower_is_not_read_to_build_the_vision_tower(tiny, monkeypatch):
    path, _ = tiny
    one = classifier(path)
    read = []
    from negmerge.checkpoints.safetensors_file import SafetensorsFile

    whole = SafetensorsFile.read
    monkeypatch.setattr(SafetensorsFile, "read", lambda s, name, *a: read.append(name) or whole(s, name, *a))
    with_pretrained(one)
    assert read and not any(name.startswith("text_") for name in read)


def test_heads_are_kept_until_model_names_or_templates_change(tiny, cache, monkeypatch):
    path, _ = tiny
    made = []
    make = prompts.make_head
    monkeypatch.setattr(prompts, "make_head", lambda *a: made.append(1) or make(*a))
    settings = clip.Settings(path=path)
    first = clip.prepare_head(settings, PROMPTS)
    assert clip.prepare_head(settings, PROMPTS) == first and len(made) == 2 and {f.parent for f in first} == {cache}
    assert clip.prepare_head(settings, PROMPTS[1:]) == first[1:] and len(made) == 2  # of each data set on its own
    assert [len(prompts.load_heads([file])) for file in first] == [2, 3]
    others = {
        *clip.prepare_head(settings, [(("cat", "cow"), None), PROMPTS[1]]),
        *clip.prepare_head(settings, [(("cat", "dog"), None)]),
    }
    assert len(made) == 4 and first[1] in others
    others.update(clip.prepare_head(clip.Settings(path=path, templates=["{}"]), PROMPTS[1:]))
    save_tiny_clip(path, seed=1)
    others.update(clip.prepare_head(settings, PROMPTS))
    assert len(made) == 7 and len(others | set(first)) == 7


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_heads_change_with_every_file_of_the_tokenizer(tiny, name):
    path, _ = tiny
    before = clip.prepare_head(clip.Settings(path=path), PROMPTS)
    file = Path(path) / name
    file.write_text((file.read_text() if file.exists() else "{}") + "\n")
    assert not set(before) & set(clip.prepare_head(clip.Settings(path=path), PROMPTS))


def test_a_linearised_model_is_the_first_order_taylor_model(tiny):
    path, _ = tiny
    exact, linear = (with_pretrained(classifier(path, linearised=value)) for value in (False, True))
    pixels = images().float() / 255
    assert torch.allclose(linear.features(pixels), exact.features(pixels), atol=1e-5)
    generator = torch.Generator().manual_seed(1)
    direction = {n: 1e-2 * torch.randn(p.shape, generator=generator) for n, p in exact.named_parameters()}

    @torch.no_grad()
    def moved(model, step):
        model = copy.deepcopy(model)
        for name, parameter in model.named_parameters():
            parameter += step * direction[name]
        return model.features(pixels)

    change = moved(linear, 1.0) - moved(linear, 0.0)
    assert change.abs().max() > 0.1
    assert torch.allclose(moved(linear, -3.0), moved(linear, 0.0) - 3 * change, atol=1e-4)  # linear, far away too
    double = copy.deepcopy(exact).double()
    pixels, direction = pixels.double(), {n: d.double() for n, d in direction.items()}
    slope = (moved(double, 1e-5) - moved(double, -1e-5)) / 2e-5
    assert torch.allclose(change.double(), slope, atol=1e-4)


def test_models_of_the_same_files_keep_their_own_attention(tiny):
    linear, exact = (classifier(tiny[0], linearised=value).build() for value in (True, False))
    kinds = [m.vision_model.config._attn_implementation for m in (linear, exact)]
    assert kinds == ["eager", "sdpa"]


@pytest.mark.parametrize("settings", [{}, {"linearised": True}, {"train": "text"}, {"train": "both"}], ids=str)
def test_a_projection_sees_the_image_tower_and_no_prompts(tiny, settings):
    model, pixels = with_pretrained(classifier(tiny[0], **settings)), images().float() / 255
    found = survey(model, lambda own, batch: own(batch), pixels)
    seen = [name for layer in found.layers for name in layer.weight]
    matrices = [name for name, value in model.named_parameters() if value.dim() > 1]
    vision = [name for name in matrices if name.startswith("vis")]
    assert seen == vision and len(seen) == (0 if settings == {"train": "text"} else 15)
    assert {*seen, *found.unseen} == {*matrices}
    if not seen:
        return
    moments = collect(model, found, list(found.sources), [pixels, pixels], lambda own, batch: own(batch))
    pieces = functional.unfold(pixels, 8, stride=8).transpose(1, 2).flatten(0, 1).double()
    torch.testing.assert_close(moments[found.layers[0].source][0], pieces.T @ pieces / len(pieces))


def test_a_linearised_model_learns(tiny):
    model = with_pretrained(classifier(tiny[0], linearised=True)).train()
    pixels, labels = images().float() / 255, torch.tensor([0, 1, 0, 1, 0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = functional.cross_entropy(model(pixels)[:, :2], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_the_text_towers_head_follows_its_weights(tiny):
    model = with_pretrained(classifier(tiny[0], train="text"))
    pixels = images().float() / 255
    with torch.no_grad():
        before = model(pixels)
        assert torch.equal(model(pixels), before)
        model.text_projection.weight.mul_(torch.linspace(0, 2, 32))
        assert not torch.allclose(model(pixels), before, atol=1e-3)
    loss = functional.cross_entropy(model.train()(pixels), torch.arange(5).repeat(2)[:6])
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_each_row_is_judged_by_its_own_head(tiny):
    one = classifier(tiny[0])
    logits, labels = torch.tensor([[1.0, 2, 9, 9, 9], [9, 9, 1, 2, 3]]), torch.tensor([0, 4])
    narrow = one.narrow(logits, labels)
    assert narrow.argmax(1).tolist() == [1, 4] and narrow.isinf().sum() == 5
    first = functional.cross_entropy(torch.tensor([[1.0, 2]]), torch.tensor([0]), label_smoothing=0.1)
    second = functional.cross_entropy(torch.tensor([[1.0, 2, 3]]), torch.tensor([2]), label_smoothing=0.1)
    assert one.loss(logits, labels, 0.1).item() == pytest.approx((first + second).item() / 2)


def test_what_is_refused(tiny, tmp_path):
    path, model = tiny
    one = classifier(path)
    with pytest.raises(InputError, match=r"takes images of shape \[3, 16, 16\], got \[3, 32, 32\]"):
        Classifier("clip", {"path": path}, 5, (3, 32, 32), head=one.head).build()
    with pytest.raises(InputError, match="the head has 5 classes, the data 4"):
        Classifier("clip", {"path": path}, 4, (3, 16, 16), head=one.head).build()
    with pytest.raises(InputError, match="none were given"):
        Classifier("clip", {"path": path}, 5, (3, 16, 16)).build()
    with pytest.raises(InputError, match=r"'a cat' must hold \{\} once"):
        clip.prepare_head(clip.Settings(path=path, templates=["a cat"]), PROMPTS)
    with pytest.raises(ValidationError, match="linearised goes with train: vision"):
        clip.Settings(path=path, train="text", linearised=True)
    (tmp_path / "open_clip.bin").touch()
    for place, lacks in ((tmp_path, r"holds no config\.json"), (tmp_path / "open_clip.bin", "is a file")):
        with pytest.raises(InputError, match=rf"{lacks}; give the folder .*examples/clip/convert_open_clip\.py makes"):
            clip.image_form(clip.Settings(path=str(place)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="is a 'bert' model, not a clip model"):
        clip.image_form(clip.Settings(path=str(tmp_path / "other")))
    state = model.state_dict()
    del state["text_projection.weight"]
    write_state_dict(tmp_path / "clip" / "model.safetensors", state)
    with pytest.raises(InputError, match=r"1 tensors differ:\n  missing: text_projection.weight"):
        clip.prepare_head(clip.Settings(path=path), PROMPTS)


def test_a_model_is_looked_up_once_and_not_with_every_batch(tiny, monkeypatch):
    path, _ = tiny
    looked = []
    monkeypatch.setattr(clip_files, "find", lambda asked: looked.append(str(asked)) or (Path(path), Path("a/b@commit")))
    one = classifier("someone/clip")
    model = one.build(0)
    for _ in range(3):
        one.prepare(images())
    assert model is not None and looked == ["someone/clip"]
    assert clip.pinned(one.checked)["path"] == path and len(looked) == 1  # what other processes are told
    files = clip.model_files(one.checked)  # the next run: the folder may be another by now
    assert len(looked) == 2
    assert [str(n) for n in files if "token" not in n] == [
        f"a/b@commit/{name}" for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    ]


def test_the_papers_models_go_by_name():
    from negmerge.tasks.zero_shot.files import KNOWN

    assert list(KNOWN) == ["ViT-B/32", "ViT-B/16", "ViT-L/14"] and registry.load("families", "clip") is clip
