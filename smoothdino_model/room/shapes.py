# SPDX-License-Identifier: Apache-2.0
"""The shapes that a room is built of, as rows of numbers for the renderer.

World: metres, z up, one corner of the floor at the origin.
"""

from __future__ import annotations

import math

import numpy as np

from smoothdino_model.room.textures import COLUMN, FITTED, NAMES, TILE

Color = tuple[float, float, float] | np.ndarray

# faces of a box as (6, 4, 3) signs: front (+y), back, right, left, top, bottom
BOX = np.array([
    [[1, 1, 1], [1, 1, -1], [-1, 1, -1], [-1, 1, 1]],
    [[-1, -1, 1], [-1, -1, -1], [1, -1, -1], [1, -1, 1]],
    [[1, -1, 1], [1, -1, -1], [1, 1, -1], [1, 1, 1]],
    [[-1, 1, 1], [-1, 1, -1], [-1, -1, -1], [-1, -1, 1]],
    [[-1, 1, 1], [-1, -1, 1], [1, -1, 1], [1, 1, 1]],
    [[-1, -1, -1], [-1, 1, -1], [1, 1, -1], [1, -1, -1]],
], float)  # fmt: skip


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of the last axis; numpy's own is slow for a few vectors."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


class Shapes:
    """Quads, spheres, and the boxes that cast shadows and bar the way."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.size = np.array([rng.uniform(3.2, 8), rng.uniform(3, 6), rng.uniform(2.4, 2.8)])
        self.corners: list[np.ndarray] = []  # (n, 4, 3): left top, left bottom, right bottom, ...
        self.surface: list[np.ndarray] = []  # (n, 18), see _surface
        self.quad_rows: list[np.ndarray] = []
        self.rows = 0
        self.textures: set[str] = set()
        self.spheres: list[tuple[np.ndarray, float, int]] = []  # centre, radius, surface
        self.solids: list[tuple[np.ndarray, np.ndarray, float]] = []  # centre, half size, yaw
        self.lamps: list[np.ndarray] = []
        self.windows: list[tuple[np.ndarray, np.ndarray]] = []  # centre, inward normal
        self.taken: list[tuple[float, float, float, float]] = []  # footprints x0, y0, x1, y1
        self._x = self._y = self._yaw = 0.0  # where the piece that is being built stands

    def _surface(self, normal, u_axis, v_axis, origin, texture: str, tint: Color, emission) -> int:
        """Append rows and return the first one's number.

        A row: normal 3, u axis 3 and offset, v axis 3 and offset (tiles per metre), tint 3,
        emission, texture column, texels per metre, and w (normal . x = w on the plane).
        """
        count, rows = len(normal), np.empty((len(normal), 18))
        shift = np.zeros((count, 2)) if texture in FITTED else self.rng.random((count, 2))
        rows[:, 0:3], rows[:, 3:6], rows[:, 7:10] = normal, u_axis, v_axis
        rows[:, 6] = shift[:, 0] - (u_axis * origin).sum(1)
        rows[:, 10] = shift[:, 1] - (v_axis * origin).sum(1)
        rows[:, 11:14], rows[:, 14], rows[:, 15] = tint, emission, NAMES.index(texture) * COLUMN
        rows[:, 16] = TILE * ((u_axis**2).sum(1) * (v_axis**2).sum(1)) ** 0.25
        rows[:, 17] = (normal * origin).sum(1)
        self.textures.add(texture)
        self.surface.append(rows)
        self.rows += count
        return self.rows - count

    def _quads(
        self, corners, texture: str, tint: Color, *, tile_m=1.0, fit=False, emission=0.0
    ) -> None:
        """Convex quads (n, 4, 3): left top, left bottom, right bottom, right top as seen."""
        right, down = corners[:, 3] - corners[:, 0], corners[:, 1] - corners[:, 0]
        normal = cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        normal /= np.sqrt((normal**2).sum(1, keepdims=True))
        width = np.sqrt((right**2).sum(1, keepdims=True))
        u_axis = right / width
        v_axis = cross(u_axis, normal)
        if fit:
            u_axis, v_axis = u_axis / width, v_axis / np.sqrt((down**2).sum(1, keepdims=True))
        else:
            u_axis, v_axis = u_axis / tile_m, v_axis / tile_m
        origin = corners[:, 0]
        first = self._surface(normal, u_axis, v_axis, origin, texture, tint, emission)
        self.quad_rows.append(np.arange(first, self.rows))
        self.corners.append(corners)

    def quad(self, origin, right, down, texture: str, tint: Color, **look) -> None:
        """A rectangle seen with `right` to the right and `down` downwards."""
        origin, right, down = (np.asarray(v, float) for v in (origin, right, down))
        corners = np.array([[origin, origin + down, origin + right + down, origin + right]])
        self._quads(corners, texture, tint, **look)

    def stand(self, x: float, y: float, yaw: float) -> None:
        self._x, self._y, self._yaw = x, y, yaw

    def at(self, x: float, y: float, z: float) -> np.ndarray:
        c, s = math.cos(self._yaw), math.sin(self._yaw)
        return np.array([self._x + c * x - s * y, self._y + s * x + c * y, z])

    def box(
        self, x, y, z, sx, sy, sz, texture='plain', tint: Color = (1, 1, 1), *, tile_m=1.0,
        front: str | None = None,
    ) -> None:  # fmt: skip
        """A box on height z, its footprint centred on (x, y) of the piece that is built."""
        c, s = math.cos(self._yaw), math.sin(self._yaw)
        size = np.array([sx, sy, sz])
        corners = BOX * (size / 2)
        turned = np.stack(
            [c * corners[..., 0] - s * corners[..., 1], s * corners[..., 0] + c * corners[..., 1],
             corners[..., 2]], axis=-1,
        )  # fmt: skip
        center = self.at(x, y, z + sz / 2)
        turned += center
        if front is None:
            self._quads(turned[: 6 if z > 0.02 else 5], texture, tint, tile_m=tile_m)
        else:
            self._quads(turned[1 : 6 if z > 0.02 else 5], texture, tint, tile_m=tile_m)
            self._quads(turned[:1], front, tint, fit=True)
        self.solids.append((center, size / 2, self._yaw))

    def prism(self, x, y, z, radius, top_radius, height, texture, tint, emission=0.0) -> None:
        """Eight sides and a lid: pots, shades, table legs, bins."""
        turn = np.arange(9) * np.pi / 4
        c, s, zero = np.cos(turn), np.sin(turn), np.zeros(9)
        center = self.at(x, y, z)
        low = np.stack([radius * c, radius * s, zero], axis=1) + center
        high = np.stack([top_radius * c, top_radius * s, zero + height], axis=1) + center
        sides = np.stack([high[:-1], low[:-1], low[1:], high[1:]], axis=1)
        lid = high[np.array([[0, 1, 2, 3], [0, 3, 4, 7], [4, 5, 6, 7]])]
        self._quads(np.concatenate([sides, lid]), texture, tint, emission=emission)
        half = np.array([radius, radius, height / 2])
        if emission == 0:
            self.solids.append((self.at(x, y, z + height / 2), half, 0.0))

    def ball(self, x, y, z, radius, texture, tint, emission=0.0) -> None:
        center = self.at(x, y, z)
        axes = (np.array([[0.0, 0, 1]]), np.array([[1.0, 0, 0]]), np.array([[0.0, 0.6, -1]]))
        row = self._surface(*axes, center, texture, tint, emission)
        self.spheres.append((center, radius, row))
        self.solids.append((center, np.full(3, radius * 0.75), 0.0))
