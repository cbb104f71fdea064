"""Pictures drawn by code, so that a demonstration has something to classify without shipping or fetching a photograph.

`PICTURES` has them by name, each with the ImageNet class it is meant to be:

    maze             maze, labyrinth
    crossword        crossword puzzle, crossword
    traffic-light    traffic light, traffic signal, stoplight
    analog-clock     analog clock
    digital-clock    digital clock
    spider-web       spider web, spider's web
    jack-o-lantern   jack-o'-lantern
    shoji            shoji

A trained SqueezeNet 1.1 puts each of them first. They are 256 x 256 RGB and always the same; all are drawn larger and
shrunk, which smooths their edges.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIDE = 256

_SCALE = 4

_MIDDLE = SIDE / 2

_BLACK = (10, 10, 10)

Colour = tuple[int, int, int]

Point = tuple[float, float]


@dataclass(frozen=True)
class DrawnPicture:
    """How to draw a picture, and the class it is meant to be, as ImageNet's list of labels words it."""

    draw: Callable[[], Image.Image]
    meant: str


class _Canvas:
    """A square of `SIDE` units with its origin at the top left, drawn on at a larger scale."""

    def __init__(self, background: Colour) -> None:
        self._image = Image.new("RGB", (SIDE * _SCALE, SIDE * _SCALE), background)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour, radius: float = 0) -> None:
        corners = [left * _SCALE, top * _SCALE, right * _SCALE - 1, bottom * _SCALE - 1]
        self._draw.rounded_rectangle(corners, radius * _SCALE, fill)

    def oval(self, x: float, y: float, across: float, down: float, fill: Colour) -> None:
        """Around (x, y), reaching `across` to either side and `down` up and down."""
        self._draw.ellipse([_SCALE * v for v in (x - across, y - down, x + across, y + down)], fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        self.oval(x, y, radius, radius, fill)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, colour, round(width * _SCALE), joint="curve")

    def polygon(self, points: list[Point], fill: Colour) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill)

    def finish(self) -> Image.Image:
        return self._image.resize((SIDE, SIDE), Image.Resampling.BOX)


def maze() -> Image.Image:
    """A square labyrinth with one way through, in black on white."""
    cells, margin, wall = 16, 8.0, 2.0
    step = (SIDE - 2 * margin) / cells
    passages = _passages(cells, random.Random(7))
    canvas = _Canvas((255, 255, 255))

    def build(column: int, row: int, across: int, down: int) -> None:
        left, top = margin + column * step - wall / 2, margin + row * step - wall / 2
        canvas.box(left, top, left + across * step + wall, top + down * step + wall, (20, 20, 20))

    for row in range(cells + 1):
        for column in range(cells):
            is_door = (column, row) in ((0, 0), (cells - 1, cells))
            if not is_door and ((column, row - 1), (column, row)) not in passages:
                build(column, row, 1, 0)
            if ((row - 1, column), (row, column)) not in passages:
                build(row, column, 0, 1)
    return canvas.finish()


_Cell = tuple[int, int]


def _passages(cells: int, chance: random.Random) -> set[tuple[_Cell, _Cell]]:
    """Pairs of neighbouring cells with no wall between them, upper or left one first; any two cells are joined once."""
    passages: set[tuple[_Cell, _Cell]] = set()
    seen, trail = {(0, 0)}, [(0, 0)]
    while trail:
        x, y = trail[-1]
        around = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
        fresh = [cell for cell in around if max(cell) < cells and min(cell) >= 0 and cell not in seen]
        if not fresh:
            trail.pop()
            continue
        chosen = fresh[int(chance.random() * len(fresh))]
        passages.add((min((x, y), chosen), max((x, y), chosen)))
        seen.add(chosen)
        trail.append(chosen)
    return passages


def crossword() -> Image.Image:
    """A square crossword, not filled in, its black squares arranged symmetrically as is the custom."""
    squares, margin, line = 13, 8.0, 1.0
    side = (SIDE - 2 * margin) / squares
    chance = random.Random(3)
    black: set[_Cell] = set()
    for row in range(squares):
        for column in range(squares):
            if chance.random() < 0.18:
                black |= {(column, row), (squares - 1 - column, squares - 1 - row)}

    def white(column: int, row: int) -> bool:
        return 0 <= column < squares and 0 <= row < squares and (column, row) not in black

    canvas = _Canvas((255, 255, 255))
    canvas.box(margin - line, margin - line, SIDE - margin + line, SIDE - margin + line, (0, 0, 0))
    number = 0
    for row in range(squares):
        for column in range(squares):
            if not white(column, row):
                continue
            left, top = margin + column * side, margin + row * side
            canvas.box(left + line, top + line, left + side - line, top + side - line, (255, 255, 255))
            across = not white(column - 1, row) and white(column + 1, row)
            down = not white(column, row - 1) and white(column, row + 1)
            if across or down:
                number += 1
                for place, digit in enumerate(str(number)):
                    _digit(canvas, digit, left + 2.5 + 4 * place, top + 2.5, _CLUE, (40, 40, 40))
    return canvas.finish()


def traffic_light() -> Image.Image:
    """A traffic light that shows red, on its pole before a blue sky."""
    canvas = _Canvas((120, 170, 225))
    canvas.box(122, 190, 134, SIDE, (90, 90, 90))
    canvas.box(92, 28, 164, 204, (25, 25, 25), radius=10)
    for y, colour in ((60, (255, 40, 30)), (116, (80, 55, 10)), (172, (10, 60, 25))):
        canvas.disc(_MIDDLE, y, 25, _BLACK)
        canvas.disc(_MIDDLE, y, 22, colour)
    canvas.disc(_MIDDLE, 60, 12, (255, 100, 90))
    return canvas.finish()


def analog_clock() -> Image.Image:
    """A round clock with a brass rim on a blue wall, at eighteen minutes to four."""
    hour, minute, second, radius = 3, 42, 35, 90
    canvas = _Canvas((30, 60, 110))
    canvas.disc(_MIDDLE, _MIDDLE, radius + 10, (200, 160, 60))
    canvas.disc(_MIDDLE, _MIDDLE, radius, (250, 250, 245))

    def stroke(turn: float, start: float, end: float, colour: Colour, width: float) -> None:
        """From `start` to `end` away from the centre; `turn` is 0 at the top and 1 after a full round."""
        x, y = math.sin(math.tau * turn), -math.cos(math.tau * turn)
        ends = [(_MIDDLE + x * r, _MIDDLE + y * r) for r in (start, end)]
        canvas.line(ends, colour, width)

    for mark in range(60):
        length, width = (14, 4) if mark % 5 == 0 else (5, 1.5)
        stroke(mark / 60, radius - 4 - length, radius - 4, _BLACK, width)
    stroke((hour + minute / 60) / 12, -14, radius * 0.5, _BLACK, 7)
    stroke(minute / 60, -14, radius * 0.78, _BLACK, 5)
    stroke(second / 60, -14, radius * 0.85, (200, 20, 20), 1.5)
    canvas.disc(_MIDDLE, _MIDDLE, 6, _BLACK)
    return canvas.finish()


_SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
"""Which strokes of a seven-segment display make each digit: a to f clockwise from the top, g in the middle."""

_DISPLAY = (34, 62, 7)
_CLUE = (3, 5, 0.75)
"""Width, height and thickness of the digits on the clock and in the crossword."""


def digital_clock() -> Image.Image:
    """A black alarm clock on a table, showing 12:48 in red."""
    red = (255, 30, 20)
    canvas = _Canvas((190, 185, 175))
    canvas.box(0, 185, SIDE, SIDE, (130, 100, 70))
    canvas.box(14, 70, 242, 190, (40, 40, 44), radius=14)
    canvas.box(26, 86, 230, 174, (15, 10, 12), radius=6)
    for left, digit in ((38, "1"), (82, "2"), (144, "4"), (188, "8")):
        _digit(canvas, digit, left, 99, _DISPLAY, red)
    for top in (112, 140):
        canvas.box(127, top, 134, top + 7, red)
    return canvas.finish()


def _digit(canvas: _Canvas, digit: str, x: float, y: float, size: tuple[float, float, float], colour: Colour) -> None:
    """A seven-segment digit with its top left corner at (x, y)."""
    width, height, thick = size
    right, half, bottom = x + width, y + height / 2, y + height
    places = {
        "a": (x, y, right, y + thick),
        "b": (right - thick, y, right, half),
        "c": (right - thick, half, right, bottom),
        "d": (x, bottom - thick, right, bottom),
        "e": (x, half, x + thick, bottom),
        "f": (x, y, x + thick, half),
        "g": (x, half - thick / 2, right, half + thick / 2),
    }
    for segment in _SEGMENTS[int(digit)]:
        canvas.box(*places[segment], colour, radius=thick / 4)


def spider_web() -> Image.Image:
    """A pale orb web, its threads sagging inwards, before dark green."""
    spokes, rings, thread = 12, 9, (225, 230, 230)
    canvas = _Canvas((30, 45, 30))
    turns = [math.tau * i / spokes + 0.13 * math.sin(5 * i) for i in range(spokes)]
    turns.append(turns[0] + math.tau)

    def at(turn: float, radius: float) -> Point:
        return (130 + math.cos(turn) * radius, 124 + math.sin(turn) * radius)

    for turn in turns:
        canvas.line([at(turn, 0), at(turn, 190)], thread, 1)
    for ring in range(1, rings + 1):
        for before, after in itertools.pairwise(turns):
            steps = [i / 6 for i in range(7)]
            sag = [13 * ring * (1 - 0.14 * math.sin(math.pi * step)) for step in steps]
            points = [at(before + (after - before) * step, r) for step, r in zip(steps, sag, strict=True)]
            canvas.line(points, thread, 0.8)
    return canvas.finish()


def jack_o_lantern() -> Image.Image:
    """A carved pumpkin, lit from inside, in the dark."""
    canvas = _Canvas((8, 6, 14))
    ribs = ((-60, 48, (190, 85, 10)), (60, 48, (190, 85, 10)), (-30, 52, (220, 105, 15)), (30, 52, (220, 105, 15)))
    for offset, across, orange in (*ribs, (0, 50, (240, 125, 20))):
        canvas.oval(_MIDDLE + offset, 145, across, 90, orange)
    canvas.box(120, 28, 138, 64, (70, 90, 30), radius=4)
    left_eye: list[Point] = [(75, 130), (110, 130), (95, 95)]
    right_eye: list[Point] = [(146, 130), (181, 130), (161, 95)]
    nose: list[Point] = [(120, 155), (136, 155), (128, 138)]
    upper_lip: list[Point] = [
        (62, 165),
        (85, 180),
        (95, 172),
        (108, 185),
        (128, 178),
        (148, 185),
        (161, 172),
        (171, 180),
    ]
    lower_lip: list[Point] = [(194, 165), (170, 210), (150, 205), (142, 215), (114, 215), (106, 205), (86, 210)]
    for hole in (left_eye, right_eye, nose, upper_lip + lower_lip):
        canvas.polygon(hole, (255, 225, 90))
    return canvas.finish()


def shoji() -> Image.Image:
    """Two sliding doors of paper in dark wooden frames."""
    canvas = _Canvas((205, 180, 140))
    for left in (10, 130):
        canvas.box(left, 8, left + 116, 248, (90, 60, 35))
        for row in range(7):
            for column in range(4):
                x, y = left + 6 + 26.5 * column, 14 + 33 * row
                canvas.box(x, y, x + 24, y + 30, (248, 244, 232))
    return canvas.finish()


PICTURES = {
    "maze": DrawnPicture(maze, "maze, labyrinth"),
    "crossword": DrawnPicture(crossword, "crossword puzzle, crossword"),
    "traffic-light": DrawnPicture(traffic_light, "traffic light, traffic signal, stoplight"),
    "analog-clock": DrawnPicture(analog_clock, "analog clock"),
    "digital-clock": DrawnPicture(digital_clock, "digital clock"),
    "spider-web": DrawnPicture(spider_web, "spider web, spider's web"),
    "jack-o-lantern": DrawnPicture(jack_o_lantern, "jack-o'-lantern"),
    "shoji": DrawnPicture(shoji, "shoji"),
}
"""The pictures by name; the first is the one that `sqzc demo` shows first."""
