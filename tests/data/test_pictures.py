from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from random_images import noise_image

from commentaries.data import Preparation
from commentaries.data.pictures import SUFFIXES, Unreadable, decode, inspect
from commentaries.errors import BadInput

COLOUR = Preparation(8, 3)


def decoded(path, image, preparation=COLOUR, **options):
    image.save(path, **options)
    return decode(path, preparation)


def one_colour(mode, colour, size=(8, 8)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_format(tmp_path, suffix, mode):
    if (suffix, mode) in {(".pgm", "RGB"), (".pbm", "RGB"), (".gif", "RGB")}:
        pytest.skip("has no colour")
    image = noise_image((9, 8), mode)
    if suffix == ".pbm":
        image = image.convert("1")
    options = {"lossless": True} if suffix == ".webp" else {"quality": 100, "subsampling": 0}
    options = options if suffix in (".webp", ".jpg", ".jpeg", ".jpe", ".jfif") else {}
    if suffix in (".jpe", ".jfif"):
        options["format"] = "JPEG"
    path = tmp_path / f"image{suffix.upper()}"
    found = decoded(path, image, Preparation(8, 3 if mode == "RGB" else 1), **options)
    expected = np.asarray(image.convert(mode), dtype=int)[:, :8].reshape(8, 8, -1)
    assert found.dtype == np.uint8
    close = 12 if suffix in (".jpg", ".jpeg", ".jpe", ".jfif") else 0
    assert np.abs(found.transpose(1, 2, 0) - expected).max() <= close
    # WebP has no grey images, and a GIF has a palette.
    assert inspect(path) == (8, mode == "L" and suffix not in (".webp", ".gif"))


def test_what_counts_is_the_content_and_not_the_ending(tmp_path):
    path = tmp_path / "image.png"
    found = decoded(path, one_colour("RGB", (10, 200, 30)), format="BMP")
    assert found[:, 0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize("size", [(16, 16), (40, 16), (16, 41), (200, 17), (3, 5), (1, 9), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_becomes_the_middle_square(tmp_path, size, channels):
    # Red left and right (or above and below) of a green middle square.
    side = min(size)
    image = one_colour("RGB", (255, 0, 0), size)
    image.paste((0, 255, 0), box=tuple([(n - side) // 2 for n in size]
                                       + [(n - side) // 2 + side for n in size]))  # fmt: skip
    found = decoded(tmp_path / "image.png", image, Preparation(8, channels))
    assert found.shape == (channels, 8, 8)
    middle = found[:, 2:6, 2:6].reshape(channels, -1)
    if side == 1:  # one pixel enlarged runs into the next, as when cropped after resizing
        return
    assert np.abs(middle.T - ([0, 255, 0] if channels == 3 else [150])).max() <= 6


def test_shrinking_antialiases(tmp_path):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    found = decoded(tmp_path / "image.png", Image.fromarray(stripes), Preparation(16, 1))
    assert np.abs(found[:, :, 1:-1].astype(int) - 127).max() <= 8


def test_resizing_is_that_of_torchvision(tmp_path):
    from torchvision.transforms.v2.functional import center_crop, resize

    image = noise_image((50, 34))
    found = decoded(tmp_path / "image.png", image, Preparation(17, 3))
    theirs = np.asarray(center_crop(resize(image, [17], antialias=True), [17]))
    assert np.abs(found.transpose(1, 2, 0).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_the_orientation_of_the_camera_is_applied(tmp_path, orientation, suffix):
    from PIL import ImageOps

    upright = np.zeros((8, 8), np.uint8)
    upright[:4, :4] = 255
    upright[:2, 4:] = 100
    image = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image{suffix}"
    options = {"quality": 100} if suffix == ".jpg" else {}
    found = decoded(path, image, Preparation(8, 1), exif=exif, **options)[0]
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened), dtype=int)
    assert np.abs(found - expected).max() <= 2
    if orientation == 6:  # turned clockwise to be seen upright
        assert found[:2, 5:].mean() > 250


def test_orientation_and_crop_together(tmp_path):
    image = one_colour("RGB", (255, 0, 0), (24, 8))  # lies on its side, its left end is the top
    image.paste((0, 0, 255), (0, 0, 8, 8))
    image.paste((0, 255, 0), (8, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(tmp_path / "image.png", image, exif=exif)
    assert found[:, 4, 4].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (40, 255), (40, 40, 40)),
        ("LA", (40, 0), (255, 255, 255)),
        ("L", 40, (40, 40, 40)),
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
    ],
)
def test_transparent_is_white(tmp_path, mode, colour, expected):
    found = decoded(tmp_path / "image.png", one_colour(mode, colour))
    assert np.abs(found[:, 4, 4].astype(int) - expected).max() <= 1


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = one_colour("P", 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 8, 4))
    path = tmp_path / "image.png"
    assert decoded(path, image)[:, 6, 4].tolist() == [255, 0, 0]
    found = decoded(path, image, transparency=0)
    assert found[:, 1, 4].tolist() == [0, 0, 255]
    assert found[:, 6, 4].tolist() == [255, 255, 255]
    gif = decoded(tmp_path / "image.gif", image, transparency=1)
    assert gif[:, 1, 4].tolist() == [255, 255, 255]
    assert inspect(path) == (8, False)


def test_a_transparent_colour_of_rgb(tmp_path):
    image = one_colour("RGB", (1, 2, 3))
    found = decoded(tmp_path / "image.png", image, transparency=(1, 2, 3))
    assert found[:, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("suffix", [".jpg", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_cmyk(tmp_path, suffix, channels):
    image = one_colour("CMYK", (0, 255, 255, 0), (16, 16))  # red
    found = decoded(tmp_path / f"image{suffix}", image, Preparation(8, channels))
    expected = [255, 0, 0] if channels == 3 else [76]
    assert np.abs(found[:, 4, 4].astype(int) - expected).max() <= 3


def test_grey_and_colour_by_mode(tmp_path):
    for mode, colour in (("1", 1), ("L", 9), ("LA", (9, 9))):
        one_colour(mode, colour).save(tmp_path / "grey.png")
        assert inspect(tmp_path / "grey.png") == (8, True)
    for mode, colour in (("RGB", (9, 9, 9)), ("RGBA", (9, 9, 9, 9))):
        one_colour(mode, colour).save(tmp_path / "colour.png")
        assert inspect(tmp_path / "colour.png") == (8, False)
        assert decode(tmp_path / "colour.png", Preparation(4, 1)).shape == (1, 4, 4)


def test_large_photographs_are_decoded_small(tmp_path):
    image = noise_image((30, 20)).resize((1200, 800))
    image.save(tmp_path / "image.jpg", quality=95)
    image.save(tmp_path / "image.png")
    fast, exact = (
        decode(tmp_path / f"image.{each}", Preparation(32, 3)).astype(int)
        for each in ("jpg", "png")
    )
    assert np.abs(fast - exact).mean() < 4


def deep(path, kind):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    if kind == "grey":
        Image.fromarray(ramp).save(path)
    elif kind == "float":
        Image.fromarray(ramp.astype(np.float32)).save(path)
    elif kind == "int":
        Image.fromarray(ramp.astype(np.int32)).save(path)
    elif kind == "ppm":
        path.write_bytes(b"P6 8 8 65535\n" + np.stack([ramp] * 3, -1).astype(">u2").tobytes())
    else:  # Pillow does not write 16-bit colour: by hand
        import struct
        import zlib

        pixels = np.stack([ramp] * 3, -1).astype(">u2")
        raw = b"".join(b"\0" + row.tobytes() for row in pixels)
        parts = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(raw)),
            (b"IEND", b""),
        ]
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(data)) + name + data
                + struct.pack(">I", zlib.crc32(name + data))
                for name, data in parts
            )
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "grey"), ("a.tif", "grey"), ("a.tif", "float"), ("a.tif", "int"),
        ("a.ppm", "ppm"), ("a.png", "colour"), ("a.pgm", "grey"),
    ],
)  # fmt: skip
def test_more_than_8_bits_are_refused(tmp_path, name, kind):
    deep(tmp_path / name, kind)
    with Image.open(tmp_path / name) as image:  # is an image that Pillow reads
        image.load()
    for look in (inspect, lambda path: decode(path, COLOUR)):
        with pytest.raises(Unreadable, match="more than 8 bits a channel"):
            look(tmp_path / name)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_animations_are_refused(tmp_path, suffix):
    frames = [noise_image((8, 8), seed=i) for i in range(3)]
    path = tmp_path / f"image{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for look in (inspect, lambda path: decode(path, COLOUR)):
        with pytest.raises(Unreadable, match="animated or of several pages"):
            look(path)
    frames[0].save(path, save_all=True)
    assert inspect(path)[0] == 8


def test_a_photograph_with_a_preview_behind_it_is_one_image(tmp_path):
    path = tmp_path / "image.jpg"
    large, preview = noise_image((32, 24)), noise_image((8, 6))
    large.save(path, format="MPO", save_all=True, append_images=[preview])
    assert inspect(path) == (24, False)
    assert decode(path, COLOUR).shape == (3, 8, 8)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".gif", ".ppm"])
def test_half_a_file_is_damaged(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    noise_image((64, 64)).save(path)
    half(path)
    with pytest.raises(Unreadable) as error:
        decode(path, COLOUR)
    assert str(error.value).startswith(("damaged: ", "not an image"))
    assert str(path) not in str(error.value)


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_file_cut_anywhere_gives_pixels_or_a_reason(tmp_path, cut):
    path = tmp_path / "image.png"
    noise_image((10, 10)).save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with suppress(Unreadable):
        assert decode(path, COLOUR).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
    ],
)
def test_what_is_no_image(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    for look in (inspect, lambda path: decode(path, COLOUR)):
        with pytest.raises(Unreadable, match=reason):
            look(tmp_path / "a.png")


def test_kinds_that_are_not_read(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"...")
    with pytest.raises(Unreadable, match=r"images of the kind \.heic are not read"):
        inspect(tmp_path / "a.HEIC")
    with pytest.raises(Unreadable, match=r"damaged: .*No such file"):
        inspect(tmp_path / "b.png")


@pytest.mark.parametrize(("size", "channels"), [(0, 3), (-4, 1), (8, 2), (8, 4)])
def test_preparations_that_cannot_be(size, channels):
    with pytest.raises(BadInput, match=r"size is|channels is"):
        Preparation(size, channels)
