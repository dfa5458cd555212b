"""The example that trains a CLIP: its tokenizer, its loss, and a training that is interrupted."""

import json
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from clip_example import byte_pairs, train_clip

NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "mnist": [str(digit) for digit in range(10)],
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both data sets in the hub's form: class n is a grey of brightness 25 · n."""
    found = {}
    for name, classes in NAMES.items():
        folder = tmp_path_factory.mktemp(name)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
        for part, rows in (("train", 320), ("test", 40)):
            labels = [i % 10 for i in range(rows)]
            pictures = [Image.fromarray(np.full((8, 8), 25 * n, dtype=np.uint8)) for n in labels]
            table = datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)
            table.to_parquet(folder / f"{part}.parquet")
        found[name] = folder
    return found


def test_pairs_by_hand():
    words = Counter({"abab": 3, "ab": 1, "b": 9})
    # a·b stands 3 times inside a word, a·b</w> 4 times at its end
    assert byte_pairs.learn_pairs(words, 3) == [("a", "b</w>"), ("a", "b"), ("ab", "ab</w>")]
    assert byte_pairs.learn_pairs(Counter({"ab": 1, "cd": 1}), 9) == [("a", "b</w>"), ("c", "d</w>")]


def test_a_tokenizer_is_the_same_again_and_after_saving(tmp_path):
    texts = ["a photo of a cat.", 'the number "7"']
    first, second = (byte_pairs.build_tokenizer(texts, 300) for _ in range(2))
    assert first.get_vocab() == second.get_vocab() and len(first) <= 300
    first.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "A PHOTO of the zebra, 42!"
    ids = first(text).input_ids
    assert loaded(text).input_ids == ids and ids[0] == 0 and ids[-1] == 1 and 1 not in ids[1:-1]
    assert first.convert_ids_to_tokens(ids)[1:4] == ["a</w>", "photo</w>", "of</w>"]


def test_the_supervised_contrastive_loss_by_hand():
    class Fixed:
        logit_scale = torch.tensor(0.0)

        def get_image_features(self, pixel_values):
            return type("Out", (), {"pooler_output": pixel_values})

        def get_text_features(self, input_ids):
            return type("Out", (), {"pooler_output": input_ids})

    images = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    captions = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # cosines: [[1, 0, 1], [0, 1, 0]]; captions 0 and 2 are of class 0, caption 1 is of class 1
    e = np.exp(1.0)
    to_text = (-np.log(e / (2 * e + 1)) - np.log(e / (e + 2))) / 2
    to_image = -np.log(e / (e + 1))
    labels, classes = torch.tensor([0, 1]), torch.tensor([0, 1, 0])
    found = train_clip.contrastive_loss(Fixed(), images, labels, captions, classes).item()
    assert found == pytest.approx((to_text + to_image) / 2, rel=1e-5)
    unseen = train_clip.contrastive_loss(Fixed(), images, labels, torch.cat([captions, captions[1:2]]),
                                         torch.tensor([0, 1, 0, 7])).item()  # fmt: skip
    assert np.isfinite(unseen)


def train(monkeypatch, folders, output, epochs):
    arguments = ["--cifar10", folders["cifar10"], "--mnist", folders["mnist"], "-o", output, "--epochs", epochs]
    monkeypatch.setattr(sys, "argv", ["train_clip.py", *(str(a) for a in arguments), "--threads", "1"])
    train_clip.main()


def test_seconds_are_those_of_all_processes_and_a_state_is_whole_or_not_written(folders, tmp_path, monkeypatch):
    def fit(*_, start, on_epoch, **__):
        on_epoch(train_clip.Epoch(start.number + 1 if start else 1, 0.5, {}))

    monkeypatch.setattr(train_clip, "fit", fit)
    monkeypatch.setattr(train_clip, "zero_shot_accuracy", lambda *_: 10.0)
    train(monkeypatch, folders, tmp_path / "clip", 3)
    file = tmp_path / "clip" / "last-epoch.pt"
    state = torch.load(file, weights_only=True)
    assert 0 < state["seconds"] < 1000
    torch.save({**state, "seconds": 1000.0}, file)
    train(monkeypatch, folders, tmp_path / "clip", 3)
    facts = json.loads((tmp_path / "clip" / "training.json").read_text())
    state = torch.load(file, weights_only=True)
    assert state["number"] == 2 and 1000 < state["seconds"] < facts["seconds"]

    def broken(_, target):
        (target.open("wb") if isinstance(target, Path) else target).write(b"half")
        raise KeyboardInterrupt

    whole = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken)
        with pytest.raises(KeyboardInterrupt):
            train(monkeypatch, folders, tmp_path / "clip", 3)
    assert file.read_bytes() == whole


@pytest.mark.heavy
def test_a_training_interrupted_after_an_epoch_ends_the_same(folders, tmp_path, monkeypatch, capsys):
    train(monkeypatch, folders, tmp_path / "whole", 2)
    assert "epoch 2: loss" in capsys.readouterr().out
    original = train_clip.zero_shot_accuracy
    calls = []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 3:  # two after the first epoch; the third is after the second, before its state is saved
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(train_clip, "zero_shot_accuracy", stop)
    with pytest.raises(KeyboardInterrupt):
        train(monkeypatch, folders, tmp_path / "parts", 2)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    monkeypatch.setattr(train_clip, "zero_shot_accuracy", original)
    train(monkeypatch, folders, tmp_path / "parts", 2)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    model = CLIPModel.from_pretrained(tmp_path / "whole")
    assert 1.1e6 < sum(p.numel() for n, p in model.named_parameters() if n.startswith("vis")) < 1.3e6
