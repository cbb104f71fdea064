"""From a picture to the array that a classification network wants.

Presets, each a resize followed by a crop of the centre. With a network input of 227 x 227 they go by way of 256; other
sizes keep that proportion, rounded.

- `pillow`: stretched to 256 x 256 by Pillow's antialiased bilinear filter, the width first and then the height.
- `omz-onnx`: stretched to 256 x 256 by OpenCV's linear filter, which does not antialias.
- `omz-ir`: the shorter side to 256 and the longer in proportion (rounded down), by OpenCV's linear filter.

OpenCV's filter for 8-bit pixels is done here in the same fixed-point arithmetic (weights of 11 bits, the partial sums
cut to 18 bits before the vertical step), so that the result is OpenCV's own, bit for bit: the largest difference from
its portable code is 0, and 1 from the exact real-valued interpolation rounded to the nearest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sqzc.diagnostics import FileError, Location, UsageError, nearest
from sqzc.runtime.tensor import InputTypeError, InputValueError

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""Rows, columns, channels; RGB unless said otherwise."""

Picture: TypeAlias = "str | os.PathLike[str] | Image.Image | Pixels"
"""A file, a decoded image, or RGB pixels."""

MAX_PIXELS = 2**26
"""A picture that claims more is refused before it is decoded; 67 megapixels take 200 MB."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Others that Pillow knows are left out: some run outside programs."""

_RESIZE_PER_CROP = 256 / 227

_WEIGHT_BITS = 11


def preprocess(
    picture: Picture,
    height: int,
    width: int,
    *,
    preset: str = "pillow",
    channel_order: str = "BGR",
    mean: Sequence[float] | None = None,
) -> npt.NDArray[np.float32]:
    """A picture as float32 [1, 3, height, width] with values from 0 to 255, less `mean` where given.

    `mean` has one value for each channel, in `channel_order` (BGR or RGB). Raises FileError for a file that cannot be
    decoded, UsageError for an unknown preset.
    """
    shrink = PRESETS.get(preset)
    if shrink is None:
        raise UsageError(
            f"there is no preprocessing preset '{preset}'",
            expected=", ".join(PRESETS),
            hint=nearest(preset, PRESETS),
        )
    pixels = shrink(picture, height, width)
    assert pixels.shape == (height, width, 3), f"preset {preset} made {pixels.shape}"
    if channel_order == "BGR":
        pixels = pixels[:, :, ::-1]
    elif channel_order != "RGB":
        raise UsageError("the channel order makes no sense", expected="BGR or RGB", got=repr(channel_order))
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
    if mean is not None:
        if len(mean) != 3:
            raise UsageError("the mean needs one value for each channel", expected="3 values", got=str(len(mean)))
        values -= np.asarray(mean, dtype=np.float32).reshape(1, 3, 1, 1)
    return values


def open_picture(picture: Picture) -> Image.Image:
    """The picture decoded, turned as its EXIF orientation says, and in RGB."""
    pillow = _pillow()
    if isinstance(picture, np.ndarray):
        drawn: Image.Image = pillow.fromarray(_check_pixels(picture))
        return drawn
    if isinstance(picture, pillow.Image):
        return _upright_rgb(picture, Location(place="the picture given"))
    if isinstance(picture, str | os.PathLike):
        location = Location(str(picture))
        with _open_file(pillow, Path(picture), location) as image:
            return _upright_rgb(image, location)
    raise InputTypeError(
        "this is no picture",
        expected="a path, a PIL image, or a uint8 RGB array [height, width, 3]",
        got=type(picture).__name__,
    )


def _upright_rgb(image: Image.Image, location: Location) -> Image.Image:
    """A decoded copy of `image`, once its size is known to be bearable."""
    from PIL import ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise FileError(
            "the picture is too large",
            location=location,
            expected=f"at most {MAX_PIXELS} pixels",
            got=f"{image.width} x {image.height}",
        )
    try:
        upright: Image.Image = ImageOps.exif_transpose(image)
        return upright.convert("RGB")
    except Exception as error:  # damaged files make Pillow's decoders raise most kinds, struct.error among them
        raise FileError(f"the picture cannot be decoded: {error}", location=location) from error


def resize_linear(pixels: Pixels, height: int, width: int, window: tuple[slice, slice] | None = None) -> Pixels:
    """OpenCV's `INTER_LINEAR` for 8-bit pixels: half-pixel centres, no antialiasing, edges repeated.

    `window` names the rows and columns of the result that are wanted; no others are computed, so that a picture of
    extreme proportions costs no more than any. The rounding is OpenCV's, see the module.
    """
    rows, columns = window or (slice(0, height), slice(0, width))
    top, bottom, down = _taps(pixels.shape[0], height, rows)
    left, right, along = _taps(pixels.shape[1], width, columns)
    # Nothing is left to blend beyond the edge columns. OpenCV keeps both weights for the edge rows, which then name
    # the same row twice; the difference shows in the rounding alone.
    on_edge = left == right
    along = (np.where(on_edge, 1 << _WEIGHT_BITS, along[0]), np.where(on_edge, 0, along[1]))

    def blend_columns(lines: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        near = pixels[lines[:, np.newaxis], left].astype(np.int32)
        far = pixels[lines[:, np.newaxis], right].astype(np.int32)
        return np.asarray(near * along[0][:, np.newaxis] + far * along[1][:, np.newaxis])

    upper = (down[0][:, np.newaxis, np.newaxis] * (blend_columns(top) >> 4)) >> 16
    lower = (down[1][:, np.newaxis, np.newaxis] * (blend_columns(bottom) >> 4)) >> 16
    return np.asarray((upper + lower + 2) >> 2).astype(np.uint8)


_Weights: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


def _taps(source: int, size: int, wanted: slice) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], _Weights]:
    """For the `wanted` positions of a line of `source` pixels resized to `size`: both neighbours and their weights."""
    scale = 1.0 / (size / source)
    centres = ((np.arange(wanted.start, wanted.stop) + 0.5) * scale - 0.5).astype(np.float32)
    floors = np.floor(centres)
    far = np.rint((centres - floors) * np.float32(1 << _WEIGHT_BITS)).astype(np.int32)
    near = np.rint((np.float32(1) - (centres - floors)) * np.float32(1 << _WEIGHT_BITS)).astype(np.int32)
    first = floors.astype(np.intp)
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), (near, far)


def _scaled(side: int) -> int:
    """The size that a picture is brought to before `side` pixels are cropped from its middle."""
    return round(side * _RESIZE_PER_CROP)


def _centre(size: int, side: int) -> slice:
    start = (size - side) // 2
    return slice(start, start + side)


def _pillow_preset(picture: Picture, height: int, width: int) -> Pixels:
    pillow = _pillow()
    size = (_scaled(width), _scaled(height))
    image = open_picture(picture)
    # Each direction rounds to 8 bits, so their order shows in the last bit. From 13.0 on Pillow does the height of
    # some tall pictures first, before that never; asked for one direction at a time it has no choice, and all
    # versions (10.4 to 13.0 tried) give the same pixels.
    for step in ((size[0], image.height), size):
        image = image.resize(step, pillow.Resampling.BILINEAR)
    return np.asarray(image)[_centre(size[1], height), _centre(size[0], width)]


def _omz_onnx_preset(picture: Picture, height: int, width: int) -> Pixels:
    pixels = _pixels_of(picture)
    tall, wide = _scaled(height), _scaled(width)
    return resize_linear(pixels, tall, wide, (_centre(tall, height), _centre(wide, width)))


def _omz_ir_preset(picture: Picture, height: int, width: int) -> Pixels:
    pixels = _pixels_of(picture)
    rows, columns = pixels.shape[:2]
    tall, wide = _scaled(height), _scaled(width)
    # Whole-number comparison and division: the side that would come out longer follows the other.
    if columns * tall >= rows * wide:
        wide = columns * tall // rows
    else:
        tall = rows * wide // columns
    return resize_linear(pixels, tall, wide, (_centre(tall, height), _centre(wide, width)))


PRESETS: dict[str, Callable[[Picture, int, int], Pixels]] = {
    "pillow": _pillow_preset,
    "omz-onnx": _omz_onnx_preset,
    "omz-ir": _omz_ir_preset,
}


def _pixels_of(picture: Picture) -> Pixels:
    """The RGB pixels of a picture. Pixels that are pixels already need no Pillow."""
    if isinstance(picture, np.ndarray):
        return _check_pixels(picture)
    return np.asarray(open_picture(picture))


def _check_pixels(pixels: npt.NDArray[Any]) -> Pixels:
    expected = "uint8 RGB pixels [height, width, 3], none of them 0"
    if pixels.dtype != np.uint8:
        raise InputTypeError("these are no 8-bit pixels", expected=expected, got=pixels.dtype.name)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise InputValueError("these pixels have the wrong shape", expected=expected, got=str(pixels.shape))
    return pixels


def _open_file(pillow: Any, path: Path, location: Location) -> Image.Image:
    """The picture with its header read and nothing decoded; the caller closes it."""
    try:
        image: Image.Image = pillow.open(path, formats=FORMATS)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise FileError(
            "the picture is too large", location=location, expected=f"at most {MAX_PIXELS} pixels", got=str(error)
        ) from error
    except pillow.UnidentifiedImageError as error:
        raise FileError(
            "the file is no picture that can be decoded", location=location, expected=f"one of {', '.join(FORMATS)}"
        ) from error
    except Exception as error:  # as in _upright_rgb
        raise FileError(f"the picture cannot be opened: {error}", location=location) from error
    return image


def _pillow() -> Any:
    """The module PIL.Image, which is needed for pictures alone."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            "decoding and resizing pictures needs the package Pillow", hint="pip install pillow"
        ) from error
    return Image
