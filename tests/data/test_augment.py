"""Augmentation: what it may do to an image, and that the generator decides."""

import pytest
import torch

from negmerge.data.augment import Augmentation, augment, parse_augmentation
from negmerge.errors import InputError


def batch(count=64):
    return torch.arange(count * 3 * 8 * 8).remainder(251).to(torch.uint8).reshape(count, 3, 8, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_specs():
    assert parse_augmentation("none") == Augmentation()
    assert parse_augmentation("crop+flip") == Augmentation(4, True)
    assert parse_augmentation("flip+crop2") == Augmentation(2, True)


@pytest.mark.parametrize("spec", ["", "crop+crop", "rotate", "none+flip", "flip+", "crop0", "crop0x", "+"])
def test_unknown_specs(spec):
    with pytest.raises(
        InputError, match=r"is not known; write none, crop \(padding 4\), crop2 .*, flip, or crop\+flip"
    ):
        parse_augmentation(spec)


def test_none_changes_nothing():
    assert torch.equal(augment(batch(), "none", generator()), batch())


def test_flip_mirrors_about_half():
    images = batch()
    out = augment(images, "flip", generator())
    mirrored = [torch.equal(o, i.flip(-1)) for o, i in zip(out, images, strict=True)]
    kept = [torch.equal(o, i) for o, i in zip(out, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True)) and 16 < sum(mirrored) < 48


def test_crop_is_a_window_of_the_padded_image():
    images = batch(16)
    out = augment(images, "crop2", generator())
    padded = torch.nn.functional.pad(images, (2,) * 4)
    found = set()
    for o, p in zip(out, padded, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(o, p[:, y : y + 8, x : x + 8])]
        assert len(places) == 1
        found.update(places)
    assert len(found) > 5
    assert out.is_contiguous() and out.dtype == torch.uint8


def test_the_generator_decides():
    a, b, c = (augment(batch(), "crop+flip", generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_crop_by_hand():
    images = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8).expand(200, 1, 2, 2)
    seen = {tuple(image.flatten().tolist()) for image in augment(images, "crop1", generator())}
    assert seen == {
        (0, 0, 0, 1), (0, 0, 1, 2), (0, 0, 2, 0),
        (0, 1, 0, 3), (1, 2, 3, 4), (2, 0, 4, 0),
        (0, 3, 0, 0), (3, 4, 0, 0), (4, 0, 0, 0),
    }  # fmt: skip


def test_floats_and_the_input_are_left_alone():
    images = batch(8).float() / 255
    before = images.clone()
    out = augment(images, "crop+flip", generator())
    assert out.dtype == torch.float32 and torch.equal(images, before)
    assert torch.equal(out, augment(batch(8), "crop+flip", generator()).float() / 255)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cpu_generator_gives_the_same_images_on_cuda():
    here = augment(batch(), "crop+flip", generator())
    assert torch.equal(augment(batch().cuda(), "crop+flip", generator()).cpu(), here)
    there = torch.Generator("cuda").manual_seed(0)
    assert augment(batch().cuda(), "crop+flip", there).shape == here.shape
