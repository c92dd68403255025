# SPDX-License-Identifier: Apache-2.0
"""Pieces of furniture: x along the wall, y away from it, each centred on its footprint."""

from __future__ import annotations

import numpy as np

from smoothdino_model.room.shapes import Color, Shapes
from smoothdino_model.room.textures import random_color


class Furniture(Shapes):
    """Builds pieces where the room stands them."""

    def _paint(self) -> np.ndarray:
        return random_color(self.rng, (0.35, 1.0), 0.65)

    def _timber(self) -> tuple[str, Color]:
        if self.rng.random() < 0.6:
            return str(self.rng.choice(['wood', 'wood2'])), np.full(3, self.rng.uniform(0.7, 1))
        return 'plain', random_color(self.rng, (0.1, 0.95), 0.4)

    def _clutter(self, w: float, d: float, z: float, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            x, y = rng.uniform(-0.42, 0.42) * w, rng.uniform(-0.35, 0.35) * d
            kind = rng.random()
            if kind < 0.15:
                r = rng.uniform(0.03, 0.09)
                self.ball(x, y, z + r, r, 'stain', self._paint())
            elif kind < 0.4:
                r = rng.uniform(0.03, 0.08)
                top = r * rng.uniform(0.6, 1.2)
                self.prism(x, y, z, r, top, rng.uniform(0.06, 0.25), 'stain', self._paint())
            else:
                size = rng.uniform(0.04, 0.28, 3)
                texture = str(rng.choice(['plain', 'stain', 'fabric', 'books']))
                self.box(x, y, z, size[0], min(size[1], d * 0.6), size[2] * 0.7, texture,
                         self._paint(), tile_m=0.4)  # fmt: skip

    def _legs(self, w: float, d: float, h: float, thick: float, look: tuple[str, Color]) -> None:
        for x in (-1, 1):
            for y in (-1, 1):
                self.box(x * (w - thick) / 2, y * (d - thick) / 2, 0, thick, thick, h, *look)

    def table(self, w: float, d: float) -> None:
        h, look = self.rng.uniform(0.42, 0.8), self._timber()
        self.box(0, 0, h - 0.04, w, d, 0.04, *look)
        self._legs(w - 0.06, d - 0.06, h - 0.04, self.rng.uniform(0.04, 0.08), look)
        self._clutter(w, d, h, int(self.rng.integers(1, 6)))

    def desk(self, w: float, d: float) -> None:
        h, look = 0.74, self._timber()
        self.box(0, 0, h - 0.03, w, d, 0.03, *look)
        for x in (-1, 1):
            self.box(x * (w / 2 - 0.02), 0, 0, 0.04, d - 0.04, h - 0.03, *look)
        self.box(0, -d * 0.25, h, 0.2, 0.15, 0.02, 'plain', (0.1, 0.1, 0.1))
        self.box(0, -d * 0.25, h + 0.1, 0.55, 0.04, 0.33, 'plain', (0.1, 0.1, 0.1), front='screen')
        self.box(0, d * 0.15, h, 0.42, 0.14, 0.02, 'stain', (0.25, 0.25, 0.27))
        self._clutter(w, d, h, int(self.rng.integers(1, 4)))

    def chair(self, w: float, d: float) -> None:
        look = self._timber()
        soft = ('fabric', self._paint()) if self.rng.random() < 0.5 else look
        self.box(0, 0, 0.42, w, d, 0.05, *soft, tile_m=0.5)
        self._legs(w, d, 0.42, 0.04, look)
        self.box(0, -d / 2 + 0.02, 0.55, w, 0.04, self.rng.uniform(0.3, 0.5), *soft, tile_m=0.5)
        for x in (-1, 1):
            self.box(x * (w / 2 - 0.02), -d / 2 + 0.02, 0.47, 0.035, 0.035, 0.1, *look)

    def shelf(self, w: float, d: float) -> None:
        rng, look = self.rng, self._timber()
        h, floors = rng.uniform(0.9, 2.1), int(rng.integers(2, 6))
        for x in (-1, 1):
            self.box(x * (w / 2 - 0.01), 0, 0, 0.025, d, h, *look)
        self.box(0, -d / 2 + 0.01, 0.02, w - 0.05, 0.015, h - 0.03, *look)
        for k in range(floors + 1):
            z = 0.05 + k * (h - 0.08) / floors
            self.box(0, 0, z, w - 0.05, d - 0.02, 0.025, *look)
            if k < floors and rng.random() < 0.8:
                part, gap = rng.uniform(0.3, 0.9) * w, (h - 0.08) / floors
                shift = rng.uniform(-0.5, 0.5) * (w - 0.06 - part)
                kind = str(rng.choice(['books', 'books2', 'stain', 'fabric2']))
                bound = kind.startswith('books')
                tall, tint = gap * rng.uniform(0.5, 0.85), (1, 1, 1) if bound else self._paint()
                front = kind if bound else None
                where = (shift, -0.02, z + 0.025, part, d * 0.75, tall)
                self.box(*where, kind, tint, tile_m=0.5, front=front)
        self._clutter(w, d, h, int(rng.integers(0, 3)))

    def sofa(self, w: float, d: float) -> None:
        rng, tint = self.rng, self._paint()
        look = (str(rng.choice(['fabric', 'fabric2', 'stain'])), tint)
        arm, seat = rng.uniform(0.12, 0.22), rng.uniform(0.36, 0.46)
        self.box(0, 0.05, 0.06, w - 2 * arm, d - 0.1, seat - 0.16, *look)
        self.box(0, -d / 2 + 0.11, 0.06, w, 0.22, rng.uniform(0.65, 0.85), *look)
        seats = max(1, round((w - 2 * arm) / 0.7))
        for k in range(seats):
            x = (k + 0.5) * (w - 2 * arm) / seats - w / 2 + arm
            self.box(x, 0.1, seat - 0.1, (w - 2 * arm) / seats - 0.02, d - 0.22, 0.13, *look)
            if rng.random() < 0.5:
                self.box(x, -d / 2 + 0.29, seat + 0.04, 0.4, 0.12, 0.35, 'fabric3', self._paint())
        for side in (-1, 1):
            self.box(side * (w - arm) / 2, 0, 0.04, arm, d, seat + rng.uniform(0.1, 0.22), *look)

    def bed(self, w: float, d: float) -> None:
        rng, look = self.rng, self._timber()
        self.box(0, 0, 0.08, w, d, 0.22, *look)
        self.box(0, 0, 0.3, w - 0.06, d - 0.06, 0.2, 'plain', random_color(rng, (0.7, 1), 0.2))
        self.box(0, d * 0.12, 0.36, w, d * 0.72, 0.17, 'fabric2', self._paint())
        self.box(0, -d / 2 + 0.02, 0, w, 0.05, rng.uniform(0.7, 1.2), *look)
        for x in (-0.25, 0.25) if w > 1.2 else (0,):
            self.box(
                x * w,
                -d * 0.38,
                0.5,
                0.55,
                0.35,
                0.11,
                'fabric3',
                random_color(rng, (0.7, 1), 0.4),
            )

    def cupboard(self, w: float, d: float) -> None:
        h, tint = float(self.rng.choice([0.85, 1.2, 2.0])), random_color(self.rng, (0.3, 1), 0.4)
        self.box(0, 0, 0.06, w, d, h, 'wood' if self.rng.random() < 0.4 else 'plain', tint,
                 front='panels')  # fmt: skip
        self._clutter(w, d, h + 0.06, int(self.rng.integers(0, 5)))

    def counter(self, w: float, d: float) -> None:
        tint = random_color(self.rng, (0.4, 1), 0.4)
        self.box(0, 0, 0.08, w, d - 0.04, 0.78, 'plain', tint, front='panels')
        self.box(0, 0.01, 0.86, w + 0.02, d, 0.04, 'stone', random_color(self.rng, (0.3, 1), 0.2))
        self.box(0, -d * 0.2, 1.45, w, d * 0.6, 0.65, 'plain', tint, front='panels')
        self._clutter(w, d, 0.9, int(self.rng.integers(1, 6)))

    def floor_lamp(self, _w: float, _d: float) -> None:
        h = self.rng.uniform(1.2, 1.7)
        self.prism(0, 0, 0, 0.14, 0.12, 0.03, 'plain', (0.2, 0.2, 0.2))
        self.box(0, 0, 0.03, 0.025, 0.025, h - 0.03, 'plain', (0.25, 0.25, 0.25))
        self.prism(0, 0, h, 0.18, 0.1, 0.25, 'plain', (1, 0.85, 0.6), 1.5)
        self.lamps.append(self.at(0, 0, h + 0.1))

    def plant(self, _w: float, _d: float) -> None:
        rng, tint = self.rng, self._paint()
        self.prism(0, 0, 0, 0.12, 0.18, 0.3, 'stain', tint)
        for _ in range(int(rng.integers(3, 7))):
            x, y = rng.uniform(-0.12, 0.12, 2)
            self.ball(x, y, rng.uniform(0.4, 1.0), rng.uniform(0.1, 0.2), 'leaves', (1, 1, 1))

    def cartons(self, _w: float, _d: float) -> None:
        z = 0.0
        for _ in range(int(self.rng.integers(1, 4))):
            w, d, h = self.rng.uniform(0.25, 0.5, 3)
            x, y = self.rng.uniform(-0.04, 0.04, 2)
            texture, tint = ('stain', (0.62, 0.45, 0.28)) if z == 0 else ('fabric3', self._paint())
            self.box(x, y, z, w, d, h, texture, tint)
            z += h
