"""The compiled loop of crop and flip: from the images in memory to a batch, each pixel copied once."""

import numpy as np

from negmerge.execution.compiling import compiled


@compiled
def crop_and_flip(images, rows, top, left, mirrored, batch):  # type: ignore[no-untyped-def]
    """Fill `batch` with windows of `images`, zeros outside of them.

    images: uint8 [n, C, H, W]; rows: int64 [b]; top, left: int64 [b], the window's corner in the image (negative or
    beyond its end where it was padded); mirrored: bool [b]; batch: uint8 [b, C, H, W], overwritten.
    """
    _, channels, height, width = images.shape
    size = channels * height * width
    pixels, target = images.reshape(-1), batch.reshape(-1)
    for i in range(len(rows)):
        first, last = max(0, -left[i]), min(width, width - left[i])
        length, flip = np.uintp(max(0, last - first)), mirrored[i]
        if length < width or top[i] != 0:
            target[i * size : (i + 1) * size] = 0
        if length == 0:
            continue
        column = width - last if flip else first
        for c in range(channels):
            for y in range(max(0, -top[i]), min(height, height - top[i])):
                # Unsigned, or each index would be checked for being negative.
                start = np.uintp(rows[i] * size + (c * height + y + top[i]) * width + first + left[i])
                end, to = start + length - np.uintp(1), np.uintp(i * size + (c * height + y) * width + column)
                if flip:
                    for x in range(length):
                        target[to + x] = pixels[end - x]
                else:
                    for x in range(length):
                        target[to + x] = pixels[start + x]
