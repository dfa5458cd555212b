"""From files of every kind to one uint8 tensor."""

import io
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from negmerge.errors import InputError
from negmerge.tasks.image_classification import room
from negmerge.tasks.image_classification.decoding import DecodingSettings, convert, decode
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.rows.row_set import join_sources


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def grey(value, size=(3, 2)):
    return Image.new("L", size, value)


def run(items, **settings):
    return decode(items, DecodingSettings(**settings), "pictures")


def test_thousands_keep_their_order():
    values = [i % 256 for i in range(1500)]
    assert run([encoded(grey(value)) for value in values])[:, 0, 0, 0].tolist() == values


def test_bytes_paths_images_and_rows_of_datasets(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(grey(7)))
    path = tmp_path / "a.png"
    items = [encoded(grey(7)), path, grey(7), {"bytes": encoded(grey(7)), "path": "a.png"}, {"path": str(path)}]
    assert run(items).flatten(1).unique(dim=0).tolist() == [[7] * 6]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (1, 1), 1), [255]),
        (Image.new("LA", (1, 1), (9, 50)), [9]),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 50)), [1, 2, 3]),
        (Image.new("RGB", (1, 1), (4, 5, 6)).convert("P", palette=Image.Palette.ADAPTIVE), [4, 5, 6]),
        (Image.fromarray(np.array([[257 * 128]], dtype=np.uint16)), [128]),
        (Image.fromarray(np.array([[65535]], dtype=np.uint16)), [255]),
    ],
    ids=["1", "LA", "RGBA", "P", "I;16", "I;16 white"],
)
def test_modes(image, expected):
    assert run([encoded(image)])[0, :, 0, 0].tolist() == expected


def test_mode_converts():
    colour = Image.new("RGB", (2, 2), (255, 0, 0))
    assert run([colour], mode="gray")[0, :, 0, 0].tolist() == [76]  # 0.299 · 255
    assert run([grey(9)], mode="rgb")[0, :, 0, 0].tolist() == [9, 9, 9]


def test_resizing_is_bilinear():
    step = Image.fromarray(np.array([[0, 200]] * 2, dtype=np.uint8))
    assert run([step], image_size=4)[0, 0, 0].tolist() == [0, 50, 150, 200]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "pictures holds no images"),
        ([grey(1), grey(1, (5, 4))], "pictures: image 1 has 5 × 4 pixels, the first image 3 × 2; set image_size"),
        (
            [grey(1), Image.new("RGB", (3, 2))],
            "image 1 is coloured, the first image is grey; set mode: rgb or mode: gray",
        ),
        ([Image.new("RGB", (3, 2)), grey(1)], "image 1 is grey, the first image is coloured; set mode"),
        ([grey(1), b"nothing"], r"image 1 is not an image that can be decoded \(no known format"),
        ([grey(1), encoded(Image.effect_noise((64, 64), 9))[:-900]], "image 1 is not an image that can be decoded"),
        ([None], r"image 0 is not an image that can be decoded \(TypeError"),
        ([{"path": "/nowhere/1.png"}], r"image 0 is not an image .*\(FileNotFoundError"),
    ],
)
def test_what_cannot_be_decoded_says_where(items, message):
    with pytest.raises(InputError, match=message):
        run(items)


def test_large_images_keep_their_order_on_threads():
    values = [i % 256 for i in range(900)]
    assert run([grey(value, (150, 140)) for value in values], image_size=2)[:, 0, 0, 0].tolist() == values


@pytest.mark.parametrize("size", [(3, 2), (150, 140)], ids=["one thread", "threads"])
def test_all_bad_images_are_listed_in_order_whatever_thread_meets_them(size):
    items = [grey(0, size)] * 2000
    for bad in (700, 1900):
        items[bad] = b"nothing"
    for _ in range(5):
        with pytest.raises(InputError, match="2 images cannot be decoded; remove or replace them:") as caught:
            run(items)
        assert str(caught.value).splitlines()[1:] == [f"  pictures: image {n} (no known format)" for n in (700, 1900)]


def test_decoded_images_are_converted_only_where_needed():
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 1, 3, 4)
    assert convert(pixels, DecodingSettings()) is pixels
    assert convert(pixels, DecodingSettings(mode="gray")) is pixels
    assert convert(pixels, DecodingSettings(image_size=4)).shape == (2, 1, 4, 4)
    assert torch.equal(convert(pixels, DecodingSettings(mode="rgb")), pixels.expand(2, 3, 3, 4))


def test_the_centre_is_cut_out_as_clip_does():
    wide = Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8)[None, :] * 30, 4, 0))
    assert decode([wide], DecodingSettings(image_size=4, resize="crop"), "x")[0, 0].tolist() == [[60, 90, 120, 150]] * 4
    stretched = decode([wide], DecodingSettings(image_size=4), "x")[0, 0, 0].tolist()
    assert stretched[0] < 30 and stretched[-1] > 180
    tall = Image.new("RGB", (33, 71), (9, 8, 7))
    made = decode([tall], DecodingSettings(image_size=16, resize="crop"), "x")
    assert made.shape == (1, 3, 16, 16) and made[0, :, 5, 5].tolist() == [9, 8, 7]


def test_what_is_too_large_for_memory_lies_in_a_file(monkeypatch):
    """Decoded images and those of two sources, each the same as in memory."""
    pictures = [Image.fromarray(np.full((4, 5, 3), value, np.uint8)) for value in (1, 2, 3)]
    in_memory = decode(pictures, DecodingSettings(), "here")
    first = ImageSet(in_memory, torch.tensor([0, 1, 0]), ("a", "b"))
    joined = join_sources(Source(first, first), Source(first, first)).source.train
    monkeypatch.setattr(room, "IN_MEMORY", 0)
    files, make = [], tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **words: files.append(words) or make(**words))
    in_file = decode(pictures, DecodingSettings(), "here")
    assert in_file.equal(in_memory) and len(files) == 1
    first = ImageSet(in_file, first.labels, first.classes)
    again = join_sources(Source(first, first), Source(first, first)).source.train
    assert again.images.equal(joined.images) and again.fingerprint() == joined.fingerprint()
    assert len(files) == 3


def test_images_are_turned_as_exif_says():
    wide = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise to be shown
    buffer = io.BytesIO()
    wide.save(buffer, "PNG", exif=exif)
    assert run([buffer.getvalue()])[0, 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    damaged = io.BytesIO()
    wide.save(damaged, "PNG", exif=b"Exif\0\0no such thing")
    assert run([damaged.getvalue()])[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 7.4, 255.0]], np.float32), [0, 7, 255]),
        (np.array([[0.0, 257.0, 65535.0]], np.float32), [0, 1, 255]),
        (np.array([[0, 257 * 9, 65535]], np.int32), [0, 9, 255]),
        (np.array([[0, 257 * 9, 65535]], np.uint16), [0, 9, 255]),
    ],
    ids=["unit", "bytes", "16 bits in floats", "32 bits", "16 bits"],
)
def test_whole_numbers_beyond_bytes_and_floats(values, expected):
    made = encoded(Image.fromarray(values), "TIFF")
    assert run([made])[0, 0, 0].tolist() == expected and run([made], mode="rgb").shape == (1, 3, 1, 3)


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "NaN"), (-1.0, "from -1 to 0"), (1e6, r"to 1e\+06")])
def test_floats_that_are_no_image(value, reason):
    with pytest.raises(InputError, match=reason):
        run([encoded(Image.fromarray(np.array([[0.0, value]], np.float32)), "TIFF")])


def test_cmyk():
    ink = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind in ("TIFF", "JPEG"):
        red, green, blue = run([encoded(ink, kind)])[0, :, 0, 0].tolist()
        assert red < 10 and green > 200 and blue > 200, kind


@pytest.mark.parametrize("shape", [(2, 3, 5), (7,), (2, 2, 2, 3)])
def test_arrays_that_are_no_image(shape):
    with pytest.raises(InputError, match=r"an image is \[H, W\], \[H, W, C\] or \[C, H, W\]"):
        run([np.zeros(shape, np.uint8)])
