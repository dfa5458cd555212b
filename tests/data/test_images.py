"""Image sets and sources in memory: checks, rows, fingerprints, and the decoded tables on disk."""

import hashlib
import struct

import pytest
import torch

from negmerge.errors import InputError
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.image_classification.store import Store, tables_of


def images(count=4, classes=("cat", "dog"), size=2):
    pixels = torch.arange(count * size * size).to(torch.uint8).reshape(count, 1, size, size)
    return ImageSet(pixels, torch.arange(count) % len(classes), classes)


def test_image_sets_are_checked():
    with pytest.raises(InputError, match="images must be uint8"):
        ImageSet(torch.ones(1, 1, 2, 2), torch.tensor([0]), ("a",))
    with pytest.raises(InputError, match=r"labels must be int64 \[n\], got torch.int32"):
        ImageSet(torch.ones(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0], dtype=torch.int32), ("a",))
    with pytest.raises(InputError, match="labels must be from 0 to 0"):
        ImageSet(torch.ones(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([1]), ("a",))


def test_rows_are_taken_in_their_order():
    taken = images().take(torch.tensor([3, 0]))
    assert taken.images[:, 0, 0, 0].tolist() == [12, 0] and taken.labels.tolist() == [1, 0] and len(taken) == 2


def test_the_fingerprint_is_of_pixels_labels_and_class_names():
    text = "([4, 1, 2, 2], ('cat', 'dog'))"
    expected = hashlib.sha256(text.encode() + bytes(range(16)) + struct.pack("<4q", 0, 1, 0, 1)).hexdigest()
    assert expected == "959f61fb01b4e83169ffaf5970522b0fdf23213784d98d86fa7ba93bbd2fb862"
    assert images().fingerprint() == expected == images().fingerprint()
    pixels, labels = images().images, images().labels
    others = [
        ImageSet(pixels.flip(0), labels, ("cat", "dog")),
        ImageSet(pixels, labels.flip(0), ("cat", "dog")),
        ImageSet(pixels, labels, ("cat", "cow")),
        ImageSet(pixels.reshape(4, 1, 1, 4), labels, ("cat", "dog")),
        images().take(torch.arange(3)),
    ]
    assert len({other.fingerprint() for other in others} | {expected}) == 6
    strided = ImageSet(pixels.transpose(2, 3).contiguous().transpose(2, 3), labels, ("cat", "dog"))
    assert strided.fingerprint() == expected


def test_both_tables_of_a_source_have_one_shape_and_the_same_classes():
    with pytest.raises(InputError, match=r"shape \[1, 2, 2\] and test images \[1, 3, 3\]; set image_size and mode"):
        Source(images(), images(size=3))
    with pytest.raises(InputError, match="train table has the classes cat, dog and the test table dog, cat"):
        Source(images(), images(classes=("dog", "cat")))


def test_the_store_maps_what_was_written(tmp_path):
    store = Store(tmp_path / "data")
    assert not store.exists
    source = Source(images(), images(6))
    store.write(tables_of(source, prompts=["a"]))
    facts = {"classes": ["cat", "dog"], "shape": [1, 2, 2], "prompts": ["a"], "bytes": 40, "notes": []}
    assert store.exists and store.facts == {**facts, "fingerprint": tables_of(source).facts["fingerprint"]}
    table = store.table("test")
    rows = torch.tensor([5, 1])
    pixels, labels = table.take(rows)
    assert len(table) == 6 and torch.equal(pixels, source.test.images[rows]) and labels.tolist() == [1, 1]
    pixels.zero_()  # a copy: what lies on disk is as before
    assert torch.equal(table.take(rows)[0], source.test.images[rows])
