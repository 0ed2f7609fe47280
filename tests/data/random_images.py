"""Images made for tests."""

import numpy as np
from PIL import Image


def noise_image(size, mode="RGB", seed=0):
    """Random pixels; `size` is (width, height) as Pillow has it, `mode` L or RGB."""
    width, height = size
    depth = (3,) if mode == "RGB" else ()
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, *depth), dtype=np.uint8))
