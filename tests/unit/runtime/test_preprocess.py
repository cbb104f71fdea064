"""Bringing pictures to a network's input size."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sqzc.diagnostics import FileError, UsageError
from sqzc.runtime.preprocess import PRESETS, open_picture, preprocess, resize_linear

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_recorded_crops_bit_for_bit(shared_dir: Path) -> None:
    folder = shared_dir / "golden" / "squeezenet1.1"
    with np.load(folder / "golden.npz") as golden:
        for name, crop in zip(golden["files"], golden["crops"], strict=True):
            got = preprocess(folder / "images" / str(name), 227, 227, preset="pillow")
            np.testing.assert_array_equal(got[0].transpose(1, 2, 0), crop, err_msg=str(name))


# Checksums of cv2.resize(noise(h, w), (W, H), interpolation=cv2.INTER_LINEAR), the same in OpenCV 4.11.0 and 5.0.0.
OPENCV = {
    (375, 500, 256, 256): 3009455480,
    (500, 333, 384, 256): 3606987320,
    (100, 90, 256, 256): 2352427140,
    (1, 1, 7, 5): 1409190887,
    (512, 512, 256, 256): 4092606715,
    (3, 700, 256, 2): 3281811924,
}


@pytest.mark.parametrize(("case", "checksum"), OPENCV.items())
def test_linear_resize_is_opencvs(case: tuple[int, int, int, int], checksum: int) -> None:
    height, width, tall, wide = case
    assert zlib.crc32(resize_linear(noise(height, width), tall, wide).tobytes()) == checksum


def exact_linear(pixels: Pixels, tall: int, wide: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The interpolation in real numbers, one output pixel after the other."""
    height, width = pixels.shape[:2]
    result = np.empty((tall, wide, 3))
    for row in range(tall):
        y = min(max((row + 0.5) * height / tall - 0.5, 0), height - 1)
        for column in range(wide):
            x = min(max((column + 0.5) * width / wide - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = (1 - dx) * pixels[top, left] + dx * pixels[top, right]
            lower = (1 - dx) * pixels[bottom, left] + dx * pixels[bottom, right]
            result[row, column] = (1 - dy) * upper + dy * lower
    return result


@pytest.mark.parametrize("case", [(40, 60, 23, 31), (9, 7, 30, 40), (1, 5, 4, 4), (64, 64, 32, 32)])
def test_linear_resize_is_within_one_level_of_real_arithmetic(case: tuple[int, int, int, int]) -> None:
    height, width, tall, wide = case
    pixels = noise(height, width)
    want = np.rint(exact_linear(pixels, tall, wide))
    assert np.abs(resize_linear(pixels, tall, wide) - want).max() <= 1


def test_a_window_is_a_part_of_the_whole() -> None:
    pixels = noise(50, 70)
    whole = resize_linear(pixels, 33, 44)
    part = resize_linear(pixels, 33, 44, (slice(4, 20), slice(7, 44)))
    np.testing.assert_array_equal(part, whole[4:20, 7:44])


def test_presets_differ_as_described() -> None:
    pixels = noise(300, 600)
    stretched = resize_linear(pixels, 256, 256)[14:241, 14:241]
    kept = resize_linear(pixels, 256, 512)[14:241, 142:369]
    for preset, want in (("omz-onnx", stretched), ("omz-ir", kept)):
        got = preprocess(pixels, 227, 227, preset=preset, channel_order="RGB")
        np.testing.assert_array_equal(got[0].transpose(1, 2, 0), want)
    upright = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    got = preprocess(upright, 227, 227, preset="omz-ir", channel_order="RGB")
    np.testing.assert_array_equal(got[0].transpose(1, 2, 0), resize_linear(upright, 512, 256)[142:369, 14:241])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("height", "width"), [(227, 227), (224, 224), (1, 1), (64, 96), (299, 97)])
@pytest.mark.parametrize("source", [(1, 1), (37, 500), (500, 37)])
def test_any_input_size_any_picture(preset: str, height: int, width: int, source: tuple[int, int]) -> None:
    got = preprocess(np.full((*source, 3), (10, 20, 30), np.uint8), height, width, preset=preset)
    assert got.shape == (1, 3, height, width)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got[0, :, 0, 0].tolist() == [30, 20, 10]
    assert np.ptp(got[0], axis=(1, 2)).max() == 0


def test_extreme_proportions_cost_no_more() -> None:
    """Kept in proportion this would be 256 x 51,200,000 pixels; only the middle is computed."""
    got = preprocess(noise(1, 200_000), 227, 227, preset="omz-ir")
    assert got.shape == (1, 3, 227, 227)


def test_the_mean_is_subtracted_in_channel_order() -> None:
    pixels = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    got = preprocess(pixels, 4, 4, mean=(1, 2, 4))
    assert got[0, :, 0, 0].tolist() == [29, 18, 6]
    got = preprocess(pixels, 4, 4, mean=(1, 2, 4), channel_order="RGB")
    assert got[0, :, 0, 0].tolist() == [9, 18, 26]


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match=r"'pilow'(.|\n)*did you mean 'pillow'"):
        preprocess(noise(4, 4), 4, 4, preset="pilow")
    with pytest.raises(UsageError, match="BGR or RGB"):
        preprocess(noise(4, 4), 4, 4, channel_order="GBR")
    with pytest.raises(UsageError, match="3 values"):
        preprocess(noise(4, 4), 4, 4, mean=(1,))


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.float32), [[1]], None, 3])
def test_a_picture_of_a_wrong_type(pixels: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        preprocess(pixels, 4, 4)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_pixels_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    for preset in PRESETS:
        with pytest.raises(ValueError, match="wrong shape"):
            preprocess(np.zeros(shape, np.uint8), 4, 4, preset=preset)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.tiff"
    image = Image.new(mode, (5, 4)) if mode in ("I;16", "F") else Image.new("RGB", (5, 4), (9, 9, 9)).convert(mode)
    image.save(path)
    assert open_picture(path).mode == "RGB"
    assert open_picture(image).size == (5, 4)


def test_the_exif_orientation_is_followed(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned a quarter clockwise
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(open_picture(path)), np.rot90(pixels, -1))


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        preprocess(tmp_path / "none.png", 4, 4)
    with pytest.raises(FileError, match="cannot be opened"):
        preprocess(tmp_path, 4, 4)
    text = tmp_path / "text.png"
    text.write_text("hello")
    with pytest.raises(FileError, match=r"no picture(.|\n)*JPEG"):
        preprocess(str(text), 4, 4)
    postscript = tmp_path / "drawing.eps"
    postscript.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(FileError, match="no picture"):
        preprocess(postscript, 4, 4)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's own word on damaged EXIF data
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_files_give_an_error_or_a_picture(tmp_path: Path, kind: str) -> None:
    """At any length; nothing else may come out, whatever Pillow raises inside."""
    path = tmp_path / "picture"
    Image.fromarray(noise(16, 16)).save(path, format=kind)
    data = path.read_bytes()
    outcomes = set()
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        try:
            outcomes.add(open_picture(path).mode)
        except FileError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert outcomes <= {"refused", "RGB"}


def test_a_picture_that_claims_to_be_huge_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    Image.new("1", (12_000, 12_000)).save(path)
    with pytest.raises(FileError, match="too large"):
        preprocess(path, 4, 4)
    small = tmp_path / "small.png"
    Image.new("1", (100, 100)).save(small)
    monkeypatch.setattr("sqzc.runtime.preprocess.MAX_PIXELS", 9_999)
    with pytest.raises(FileError, match=r"at most 9999 pixels(.|\n)*100 x 100"):
        preprocess(small, 4, 4)
