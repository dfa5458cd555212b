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
    for i in range(len(rows)):
        first, last = max(0, -left[i]), min(width, width - left[i])
        length, start, flip = max(0, last - first), first + left[i], mirrored[i]
        for c in range(channels):
            for y in range(height):
                line = batch[i, c, y]
                source = y + top[i]
                inside = 0 <= source < height
                if not inside or length < width:
                    for x in range(width):
                        line[x] = np.uint8(0)
                if inside:
                    pixels = images[rows[i], c, source, start : start + length]
                    target = line[width - first - length : width - first] if flip else line[first : first + length]
                    if flip:
                        for x in range(length):
                            target[x] = pixels[np.uintp(length - 1 - x)]  # unsigned, or each would be checked for < 0
                    else:
                        for x in range(length):
                            target[x] = pixels[x]
