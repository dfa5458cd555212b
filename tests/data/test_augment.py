"""Augmentation: what it may do to an image, and that the generator decides."""

import pytest
import torch

from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.tasks.image_classification.augmentation import Augmentation, augment, parse_augmentation


def batch(count=64):
    return torch.arange(count * 3 * 8 * 8).remainder(251).to(torch.uint8).reshape(count, 3, 8, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_specs():
    assert parse_augmentation("none") == Augmentation()
    assert parse_augmentation("crop+flip") == Augmentation(4, True)
    assert parse_augmentation("flip+crop2") == Augmentation(2, True)
    assert parse_augmentation("crop+rand-m10-n3") == Augmentation(4, False, 10, 3)


@pytest.mark.parametrize(
    "spec",
    ["", "crop+crop", "rotate", "none+flip", "flip+", "crop0", "crop0x", "+", "rand-m0-n2", "rand-m11-n1", "rand-m5"],
)
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


@pytest.mark.parametrize("spec", ["none", "crop", "flip", "crop+flip", "crop12+flip"])
@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (40, 1, 9, 5)])
def test_compiled_equals_torch(spec, shape, monkeypatch):
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(3))
    rows = torch.tensor([5, 39, 0, 5, 17] * 9)
    chosen = augment(images, spec, generator(), rows)
    assert torch.equal(chosen, augment(images[rows], spec, generator())) and chosen.is_contiguous()
    assert torch.equal(
        augment(images[:, :, ::2], spec, generator()), augment(images[:, :, ::2].clone(), spec, generator())
    )
    monkeypatch.setattr(compiling, "AVAILABLE", False)
    assert torch.equal(chosen, augment(images, spec, generator(), rows))


def test_randaugment_is_seeded_and_leaves_the_random_numbers_alone():
    images = batch(40)
    before = torch.random.get_rng_state()
    a, b, c = (augment(images, "rand-m9-n2", generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert a.dtype == torch.uint8 and a.shape == images.shape
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a, images)


def test_sixteen_images_share_their_operation_and_the_next_have_another():
    images = batch(64)
    groups = [part for seed in range(10) for part in augment(images, "rand-m5-n1", generator(seed)).split(16)]
    inverted = [
        (part == 255 - before).flatten(1).all(1)
        for part, before in zip(groups, images.split(16) * 10, strict=True)  # one operation of fourteen, without size
    ]
    assert all(part.all() or not part.any() for part in inverted)
    assert 1 <= sum(bool(part.all()) for part in inverted) <= 12


def test_randaugment_changes_more_with_a_larger_magnitude():
    images = batch(64)

    def distance(spec):
        moved = [augment(images, spec, generator(seed)).float() for seed in range(12)]
        return sum(float((out - images).abs().mean()) for out in moved) / len(moved)

    assert distance("rand-m1-n1") < distance("rand-m10-n1") < distance("rand-m10-n3")


def test_randaugment_keeps_grey_images_grey_and_comes_after_crop_and_flip():
    grey = augment(batch(20)[:, :1], "rand-m5-n2", generator())
    assert grey.shape == (20, 1, 8, 8) and grey.dtype == torch.uint8
    source = generator()
    first = augment(batch(), "crop+flip", source)
    assert torch.equal(augment(batch(), "rand-m5-n1+flip+crop", generator()), augment(first, "rand-m5-n1", source))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cpu_generator_gives_the_same_images_on_cuda():
    here = augment(batch(), "crop+flip", generator())
    assert torch.equal(augment(batch().cuda(), "crop+flip", generator()).cpu(), here)
    there = torch.Generator("cuda").manual_seed(0)
    assert augment(batch().cuda(), "crop+flip", there).shape == here.shape
