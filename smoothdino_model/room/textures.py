# SPDX-License-Identifier: Apache-2.0
"""Textures of the procedural room: wood, tiles, cloth, books, pictures, and their atlas.

A texture is (TILE, TILE, 3) float32 in [0, 1], the square root of the albedo, and tileable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np

TILE = 256  # texels along the edge of a texture
LEVELS = 7  # mip levels, 256 to 4 texels
PAD = 2  # texels of wrapped border, for bilinear look-up


@functools.cache
def _between(cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Periodic linear interpolation of `cells` values to TILE: lower and upper index, weight."""
    at = np.arange(TILE, dtype=np.float32) * (cells / TILE)
    low = at.astype(np.intp)
    return low, (low + 1) % cells, at - low


def _noise(rng: np.random.Generator, rows: int, columns: int, octaves: int = 1) -> np.ndarray:
    """Tileable value noise in [0, 1] with `rows` x `columns` cells in its lowest octave."""
    total, weight, amplitude = np.zeros((TILE, TILE), np.float32), 0.0, 1.0
    for _ in range(octaves):
        cells = rng.random((rows, columns), dtype=np.float32) * np.float32(amplitude)
        low, high, part = _between(columns)
        cells = cells[:, low] + (cells[:, high] - cells[:, low]) * part
        low, high, part = _between(rows)
        lower = cells[low]
        total += lower + (cells[high] - lower) * part[:, None]
        weight, amplitude = weight + amplitude, amplitude * 0.55
        rows, columns = min(2 * rows, TILE), min(2 * columns, TILE)
    return total / np.float32(weight)


def _angle() -> np.ndarray:
    return np.arange(TILE, dtype=np.float32) * np.float32(2 * np.pi / TILE)


def random_color(
    rng: np.random.Generator, value: tuple[float, float], saturation: float
) -> np.ndarray:
    """A random RGB colour; most are pale, few are strong."""
    warm = rng.random() < 0.5  # as most of what people live with
    hue = rng.normal(0.6, 0.5) % 6 if warm else rng.random() * 6
    s = saturation * rng.random() ** 1.3
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (rng.uniform(*value) * (1 - s * (1 - wheel))).astype(np.float32)


def _wood_color(rng: np.random.Generator) -> np.ndarray:
    return np.array([1.0, rng.uniform(0.7, 0.86), rng.uniform(0.42, 0.66)]) * rng.uniform(
        0.55, 1.0
    )


def _plain(rng: np.random.Generator, contrast: float = 0.08, cells: int = 4) -> np.ndarray:
    gray = 1 - contrast * (_noise(rng, cells, cells, 6) + 0.4 * _noise(rng, 128, 128))
    return np.repeat(gray[..., None], 3, axis=2)


def _wallpaper(rng: np.random.Generator) -> np.ndarray:
    x, k = _angle(), int(rng.integers(4, 13))
    across = np.sin(x * k)
    pattern = across + (across[:, None] if rng.random() < 0.5 else 0.5 * np.sin(x * (3 * k)))
    pattern = np.broadcast_to(pattern, (TILE, TILE))
    mask = np.clip(0.5 + 2 * pattern, 0, 1)[..., None]
    return _plain(rng, 0.06) * (1 - mask * (1 - random_color(rng, (0.75, 1.0), 0.4)))


def _wood(rng: np.random.Generator) -> np.ndarray:
    bend = _noise(rng, 2, 4, 3)
    rings = np.sin(2 * np.pi * (bend * rng.uniform(3, 9) + _noise(rng, 32, 1, 2) * 2))
    gray = 0.86 + 0.08 * rings - 0.18 * _noise(rng, 128, 2, 2)
    return gray[..., None] * _wood_color(rng).astype(np.float32)


def _planks(rng: np.random.Generator) -> np.ndarray:
    out, count = _wood(rng), int(rng.choice([4, 8, 16]))
    step = TILE // count
    for k in range(count):
        rows = slice(k * step, (k + 1) * step)
        plank = np.roll(out[rows], int(rng.integers(TILE)), axis=1) * rng.uniform(0.8, 1.05)
        plank[:1] *= 0.6
        plank[:, int(rng.integers(TILE))] *= 0.6
        out[rows] = plank
    return out


def _tiles(rng: np.random.Generator, rows: int, columns: int, stagger: bool) -> np.ndarray:
    """Floor tiles, a checker or (staggered) bricks, with joints."""
    y, x = np.mgrid[0:TILE, 0:TILE]
    row = y * rows // TILE
    x = (x + (row % 2) * (TILE // columns // 2) * stagger) % TILE
    column = x * columns // TILE
    tones = 1 - rng.uniform(0.03, 0.25) * rng.random((rows, columns))
    tone = tones[row, column] - 0.12 * _noise(rng, 8, 8, 5)
    out = tone[..., None] * random_color(rng, (0.55, 1.0), 0.35)
    if not stagger and rng.random() < 0.4:
        out[(row + column) % 2 == 1] *= random_color(rng, (0.3, 0.9), 0.5)
    joint = (y % (TILE // rows) < 3) | (x % (TILE // columns) < 3)
    out[joint] = rng.uniform(0.4, 0.9)
    return out


def _carpet(rng: np.random.Generator) -> np.ndarray:
    gray = 1 - 0.3 * _noise(rng, 128, 128, 2) - 0.15 * _noise(rng, 4, 4, 4)
    return gray[..., None] * random_color(rng, (0.4, 0.9), 0.6)


def _fabric(rng: np.random.Generator) -> np.ndarray:
    x = _angle()
    weave = np.float32(0.08) * np.sin(64 * x)
    out = 0.9 + weave[:, None] * np.sin(64 * x) - 0.2 * _noise(rng, 4, 4, 5)
    out = np.repeat(out[..., None], 3, axis=2)
    for axis in range(int(rng.integers(0, 3))):
        stripes = np.sin(int(rng.integers(2, 9)) * x) > rng.uniform(-0.6, 0.6)
        shades = np.where(stripes[:, None], np.float32(1), random_color(rng, (0.5, 0.95), 0.7))
        out *= shades[None] if axis else shades[:, None]
    return out


def _books(rng: np.random.Generator) -> np.ndarray:
    out, x = np.zeros((TILE, TILE, 3), np.float32), 0
    while x < TILE:
        width, top = int(rng.integers(8, 22)), int(rng.integers(0, 60))
        color = random_color(rng, (0.25, 1.0), 0.9)
        out[:top, x : x + width] = 0.08
        out[top:, x : x + width] = color
        band = top + int(rng.integers(10, 120))
        out[band : band + int(rng.integers(5, 40)), x + 2 : x + width - 2] = random_color(
            rng, (0.3, 1), 0.6
        )
        out[:, x : x + 1] *= 0.3
        x += width
    return out * (1 - 0.1 * _noise(rng, 32, 32))[..., None]


def _picture(rng: np.random.Generator) -> np.ndarray:
    """A framed picture: a landscape of noise, or shapes."""
    y = np.linspace(0, 1, TILE, dtype=np.float32)[:, None, None]
    out = (1 - y) * random_color(rng, (0.5, 1.0), 0.6) + y * random_color(rng, (0.2, 0.9), 0.8)
    out = np.repeat(out, TILE, axis=1) * (0.5 + 0.6 * _noise(rng, 4, 4, 5))[..., None]
    for _ in range(int(rng.integers(0, 9))):
        shade = [float(v) for v in random_color(rng, (0.1, 1.0), 0.9)]
        center = (int(rng.integers(TILE)), int(rng.integers(TILE)))
        if rng.random() < 0.5:
            cv2.circle(out, center, int(rng.integers(8, 60)), shade, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(out, (*center, *(int(v) for v in rng.integers(15, 120, 2))), shade, -1)
    mat, edge = int(rng.integers(0, 36)), int(rng.integers(6, 16))
    if mat > 10:
        cv2.rectangle(out, (0, 0), (TILE - 1, TILE - 1), (0.93, 0.93, 0.9), 2 * (mat + edge))
    shade = [float(v) for v in random_color(rng, (0.08, 0.8), 0.5)]
    cv2.rectangle(out, (0, 0), (TILE - 1, TILE - 1), shade, 2 * edge)
    return out


def _panels(rng: np.random.Generator) -> np.ndarray:
    """A door or a cupboard's front: recessed panels and handles."""
    out = _plain(rng, 0.05) if rng.random() < 0.5 else _wood(rng)
    rows, columns = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    for r in range(rows):
        for c in range(columns):
            h, w = TILE // rows, TILE // columns
            x, y = c * w + w // 8, r * h + h // 8
            box = ((x, y), (x + 3 * w // 4, y + 3 * h // 4))
            cv2.rectangle(out, *box, [float(v) for v in out.mean((0, 1)) * 0.6], 3)
            handle = (c * w + w * 11 // 12, r * h + h // 2)
            cv2.circle(out, handle, 4, (0.15, 0.15, 0.15), -1, cv2.LINE_AA)
            cv2.line(out, (c * w, 0), (c * w, TILE), (0.1, 0.1, 0.1), 2)
        cv2.line(out, (0, r * h), (TILE, r * h), (0.15, 0.15, 0.15), 2)
    return out


def _window(rng: np.random.Generator) -> np.ndarray:
    """The world outside, through a frame with bars."""
    y = np.linspace(0, 1, TILE, dtype=np.float32)[:, None]
    ground = np.clip((y - rng.uniform(0.4, 0.9) + 0.3 * _noise(rng, 4, 8, 4)) * 12, 0, 1)
    green = (0.5 * _noise(rng, 16, 16, 4))[..., None] * np.array([0.7, 0.9, 0.6], np.float32)
    out = (1 - ground[..., None]) * np.array([0.92, 0.97, 1.0], np.float32) + ground[
        ..., None
    ] * green
    out = np.ascontiguousarray(out, np.float32)
    for k in range(int(rng.integers(1, 4)) + 1):
        cv2.line(out, (k * TILE // 2, 0), (k * TILE // 2, TILE), (0.4, 0.4, 0.4), 10)
    cv2.rectangle(out, (0, 0), (TILE - 1, TILE - 1), (0.4, 0.4, 0.4), 20)
    return out


def _screen(rng: np.random.Generator) -> np.ndarray:
    out = np.full((TILE, TILE, 3), 0.12, np.float32) + 0.05 * _noise(rng, 4, 4, 2)[..., None]
    if rng.random() < 0.4:
        out = _picture(rng)
    cv2.rectangle(out, (0, 0), (TILE - 1, TILE - 1), (0.05, 0.05, 0.05), 20)
    return out


def _leaves(rng: np.random.Generator) -> np.ndarray:
    gray = np.clip(_noise(rng, 16, 16, 3) * 2.2 - 0.5, 0.1, 1)
    return gray[..., None] * np.array([0.55, 0.8, 0.4], np.float32)


TEXTURES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    'plain': _plain,
    'stain': lambda rng: _plain(rng, 0.3, 2),
    'wallpaper': _wallpaper,
    'brick': lambda rng: _tiles(rng, 16, 4, True),
    'wood': _wood,
    'wood2': _wood,
    'planks': _planks,
    'tiles': lambda rng: _tiles(rng, *((4, 4) if rng.random() < 0.6 else (8, 8)), False),
    'carpet': _carpet,
    'fabric': _fabric,
    'fabric2': _fabric,
    'fabric3': _fabric,
    'books': _books,
    'books2': _books,
    'picture': _picture,
    'picture2': _picture,
    'picture3': _picture,
    'door': _panels,
    'panels': _panels,
    'window': _window,
    'screen': _screen,
    'leaves': _leaves,
    'stone': lambda rng: _plain(rng, 0.5, 8),
}
NAMES = tuple(TEXTURES)
COLUMN = TILE + 2 * PAD
# first row of each mip level
LEVEL_Y = np.cumsum([0] + [(TILE >> k) + 2 * PAD for k in range(LEVELS)]).astype(np.float32)
TEXELS = np.array([TILE >> k for k in range(LEVELS)], np.float32)  # of each mip level
# these show one thing, and are stretched over the surface they lie on
FITTED = ('picture', 'picture2', 'picture3', 'door', 'panels', 'window', 'screen')


def make_atlas(seed: list[int], used: set[str]) -> np.ndarray:
    """The used textures side by side, mip levels of each below one another; uint8 RGB."""
    out = np.zeros((int(LEVEL_Y[-1]), COLUMN * len(NAMES), 3), np.uint8)
    for column, name in enumerate(NAMES):
        if name not in used:
            continue
        texture = TEXTURES[name](np.random.default_rng([*seed, column]))
        image = cv2.convertScaleAbs(np.clip(texture, 0, 1), alpha=255)
        for level in range(LEVELS):
            padded = cv2.copyMakeBorder(image, PAD, PAD, PAD, PAD, cv2.BORDER_WRAP)
            y, x = int(LEVEL_Y[level]), column * COLUMN
            out[y : y + padded.shape[0], x : x + padded.shape[1]] = padded
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return out
