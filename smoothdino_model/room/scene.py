# SPDX-License-Identifier: Apache-2.0
"""What stands in the procedural room: the shell, what hangs on the walls, furniture, light.

World: metres, z up, one corner of the floor at the origin.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from smoothdino_model.room.furniture import Furniture
from smoothdino_model.room.textures import COLUMN, NAMES, random_color

YAWS = (math.pi, math.pi / 2, 0.0, -math.pi / 2)  # turns a piece's y away from the wall
GRID_M = 0.05  # of the map of free space
VOXELS = np.array([40, 36, 18])  # x, y, z, of the light volume


class Scene(Furniture):
    """A room: its shell, what hangs on the walls, and its furniture."""

    # --- the room

    def wall_frame(self, wall: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Left end (seen from inside), direction to the right, inward normal, length."""
        sx, sy, _ = self.size
        start = np.array([[0, sy, 0], [sx, sy, 0], [sx, 0, 0], [0, 0, 0]], float)[wall]
        right = np.array([[1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]], float)[wall]
        inward = np.array([[0, -1, 0], [-1, 0, 0], [0, 1, 0], [1, 0, 0]], float)[wall]
        return start, right, inward, float(sx if wall % 2 == 0 else sy)

    def free(self, x0: float, y0: float, x1: float, y1: float) -> bool:
        if x0 < 0.02 or y0 < 0.02 or x1 > self.size[0] - 0.02 or y1 > self.size[1] - 0.02:
            return False
        return all(x1 < a or x0 > c or y1 < b or y0 > d for a, b, c, d in self.taken)

    def claim(self, x: float, y: float, w: float, d: float, yaw: float) -> bool:
        c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
        a, b = (w * c + d * s) / 2, (w * s + d * c) / 2
        if not self.free(x - a, y - b, x + a, y + b):
            return False
        self.taken.append((x - a, y - b, x + a, y + b))
        return True

    def shell(self) -> None:
        rng, sz = self.rng, self.size[2]
        floor = str(rng.choice(['planks', 'planks', 'tiles', 'carpet', 'carpet', 'stone']))
        walls = ['plain', 'stain', 'wallpaper', 'brick']
        wall = str(rng.choice(walls, p=[0.45, 0.25, 0.2, 0.1]))
        paint = random_color(rng, (0.55, 1), 0.35)
        flat = 1 / rng.uniform(1.2, 2.5)
        ex, ey, ez = np.eye(3)
        floor_tint = np.full(3, rng.uniform(0.65, 1.0))
        self._surface(ez[None], ex[None] * flat, -ey[None] * flat, 0 * ex, floor, floor_tint, 0.0)
        ceiling = random_color(rng, (0.8, 1), 0.1)
        self._surface(-ez[None], ex[None] * 0.4, ey[None] * 0.4, ez * sz, 'plain', ceiling, 0.0)
        for k in range(4):
            start, right, inward, _ = self.wall_frame(k)
            tint = paint if rng.random() < 0.85 else random_color(rng, (0.3, 1), 0.6)
            self._surface(inward[None], right[None] * 0.6, -ez[None] * 0.6, start, wall, tint, 0.0)

    def hangings(self) -> None:
        """Baseboards, a door, windows, pictures and sometimes a pillar or a lamp."""
        rng, (sx, sy, sz) = self.rng, self.size
        trim = random_color(rng, (0.3, 1), 0.3)
        openings: dict[int, list[tuple[float, float]]] = {k: [] for k in range(4)}

        def hang(wall: int, width: float) -> float | None:
            length = self.wall_frame(wall)[3]
            for _ in range(6):
                s = rng.uniform(0.1, max(length - width - 0.1, 0.11))
                if s + width < length and all(
                    s + width < a - 0.05 or s > b + 0.05 for a, b in openings[wall]
                ):
                    openings[wall].append((s, s + width))
                    return s
            return None

        def panel(wall, s, top, width, height, texture, tint, thick, emission=0.0) -> np.ndarray:
            start, right, inward, _ = self.wall_frame(wall)
            center = start + right * (s + width / 2)
            self.stand(center[0], center[1], YAWS[wall])
            self.box(0, thick / 2, top - height, width, thick, height, 'plain', trim)
            down = np.array([0, 0, -height])
            origin = start + right * s + inward * (thick + 0.004) + np.array([0, 0, top])
            self.quad(origin, right * width, down, texture, tint, fit=True, emission=emission)
            return origin + right * width / 2 + down / 2

        walls = rng.permutation(4)
        for wall in walls[: int(rng.integers(1, 3))]:
            width, height = rng.uniform(0.75, 1.0), rng.uniform(1.95, 2.1)
            s = hang(wall, width)
            if s is not None:
                center = panel(
                    wall, s, height, width, height, 'door', random_color(rng, (0.5, 1), 0.4), 0.03
                )
                inward = self.wall_frame(wall)[2]
                a, b = center[:2] - 0.45, center[:2] + 0.45 + inward[:2] * 0.3
                self.taken.append((*np.minimum(a, b), *np.maximum(a, b)))
        for wall in walls[::-1][: int(rng.integers(1, 3))]:
            for _ in range(int(rng.integers(1, 3))):
                width, height = rng.uniform(0.7, 2.0), rng.uniform(0.9, 1.6)
                s = hang(wall, width)
                if s is not None:
                    top = min(sz - 0.15, rng.uniform(1.9, 2.4))
                    center = panel(wall, s, top, width, height, 'window', (1, 1, 1), 0.03,
                                   rng.uniform(0.6, 6))  # fmt: skip
                    self.windows.append((center, self.wall_frame(wall)[2]))
        for _ in range(int(rng.integers(3, 12))):
            wall, width = int(rng.integers(4)), rng.uniform(0.25, 1.1)
            s, height = hang(wall, width), width * rng.uniform(0.6, 1.4)
            if s is not None:
                texture = str(rng.choice(['picture', 'picture2', 'picture3']))
                panel(wall, s, min(rng.uniform(1.5, 2.2), sz - 0.1), width, min(height, 1.2),
                      texture, (1, 1, 1), 0.025)  # fmt: skip
        if rng.random() < 0.8:
            for wall in range(4):
                start, right, inward, length = self.wall_frame(wall)
                center = start + right * length / 2
                self.stand(center[0], center[1], YAWS[wall])
                self.box(0, 0.008, 0, length - 0.02, 0.016, 0.09, 'plain', trim)
        if rng.random() < 0.35:  # a pillar, a chimney or what makes the room an L
            w, d = rng.uniform(0.4, 0.3 * sx), rng.uniform(0.3, 0.3 * sy)
            x, y = rng.choice([w / 2, sx - w / 2]), rng.choice([d / 2, sy - d / 2])
            self.stand(float(x), float(y), 0.0)
            wall = self.surface[2][0]
            self.box(0, 0, 0, w + 0.02, d + 0.02, sz, NAMES[int(wall[15]) // COLUMN], wall[11:14],
                     tile_m=1.6)  # fmt: skip
            self.taken.append((x - w / 2 - 0.1, y - d / 2 - 0.1, x + w / 2 + 0.1, y + d / 2 + 0.1))
        lamp = np.array([sx * rng.uniform(0.3, 0.7), sy * rng.uniform(0.3, 0.7), sz - 0.12])
        self.stand(lamp[0], lamp[1], 0.0)
        self.prism(0, 0, sz - 0.06, 0.17, 0.19, 0.05, 'plain', (1, 0.95, 0.85), 4.0)
        glow = np.array([0.0, 0, sz - 0.061])
        self.quad(self.at(-0.12, 0.12, 0) * [1, 1, 0] + glow, [0, -0.24, 0], [0.24, 0, 0], 'plain',
                  (1, 0.95, 0.85), emission=5.0)  # fmt: skip
        self.lamps.append(lamp)

    def furnish(self) -> None:
        rng, (sx, sy, _) = self.rng, self.size
        pieces = (
            (self.shelf, 0.6, 1.4, 0.25, 0.4), (self.sofa, 1.0, 2.4, 0.8, 1.0),
            (self.bed, 0.9, 1.8, 1.9, 2.1), (self.cupboard, 0.6, 1.6, 0.35, 0.65),
            (self.desk, 1.0, 1.6, 0.6, 0.8), (self.counter, 1.2, 2.6, 0.55, 0.65),
            (self.table, 0.5, 1.4, 0.4, 0.8), (self.floor_lamp, 0.4, 0.4, 0.4, 0.4),
            (self.plant, 0.5, 0.6, 0.5, 0.6), (self.cartons, 0.5, 0.6, 0.5, 0.6),
            (self.chair, 0.4, 0.5, 0.4, 0.5),
        )  # fmt: skip
        kinds = rng.choice(len(pieces), size=5, replace=False)  # a room has its character
        wanted = int(sx * sy * rng.uniform(0.3, 0.65)) + 3
        if rng.random() < 0.55:
            w, d = rng.uniform(1.0, 0.5 * sx), rng.uniform(0.8, 0.5 * sy)
            self.stand(sx * rng.uniform(0.4, 0.6), sy * rng.uniform(0.4, 0.6), rng.normal(0, 0.1))
            origin, right = self.at(-w / 2, d / 2, 0.008), self.at(w / 2, d / 2, 0.008)
            texture = str(rng.choice(['picture2', 'fabric', 'fabric2', 'carpet']))
            self.quad(origin, right - origin, self.at(-w / 2, -d / 2, 0.008) - origin, texture,
                      self._paint(), fit=texture == 'picture2')  # fmt: skip
        for attempt in range(8 * wanted):
            if wanted == 0:
                break
            kind = int(rng.choice(kinds) if rng.random() < 0.7 else rng.integers(len(pieces)))
            build, w0, w1, d0, d1 = pieces[kind]
            if build == self.floor_lamp and len(self.lamps) > 2:
                continue
            w, d = rng.uniform(w0, w1), rng.uniform(d0, d1)
            if attempt < 6 * wanted or rng.random() < 0.5:
                start, right, inward, length = self.wall_frame(int(rng.integers(4)))
                if length < w + 0.1:
                    continue
                spot = start + right * rng.uniform(w / 2, length - w / 2)
                spot = spot + inward * (d / 2 + 0.03 + rng.choice([0.0, 0.02, 0.15]))
                yaw = math.atan2(-inward[0], inward[1])
                yaw += rng.normal(0, 0.12) if d0 == w0 else 0.0
            else:
                spot, yaw = (
                    rng.uniform((0.25, 0.25, 0), (0.75, 0.75, 0)) * self.size,
                    rng.random() * 7,
                )
            if self.claim(spot[0], spot[1], w, d, yaw):
                self.stand(spot[0], spot[1], yaw)
                build(w, d)
                wanted -= 1
                if build in (self.desk, self.table) and rng.random() < 0.8:
                    for side in (1, -1):
                        where = self.at(rng.uniform(-0.2, 0.2) * w, side * (d / 2 + 0.3), 0)
                        turn = yaw + (math.pi if side > 0 else 0) + rng.normal(0, 0.3)
                        if self.claim(where[0], where[1], 0.42, 0.42, turn):
                            self.stand(where[0], where[1], turn)
                            self.chair(0.42, 0.42)
                            self.stand(spot[0], spot[1], yaw)

    def clearance(self, above_m: float = 0.0) -> np.ndarray:
        """Distance in metres to what is higher than `above_m`, from above, per GRID_M cell."""
        shape = np.ceil(self.size[:2] / GRID_M).astype(int)[::-1]
        free = np.full(shape + 2, 255, np.uint8)
        free[[0, -1], :] = 0
        free[:, [0, -1]] = 0
        for center, half, yaw in self.solids:
            if center[2] + half[2] > above_m:
                c, s = math.cos(yaw), math.sin(yaw)
                corners = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * half[:2]
                points = corners @ np.array([[c, s], [-s, c]]) + center[:2]
                cv2.fillConvexPoly(free, np.round(points / GRID_M + 0.5).astype(np.int32), 0)
        return cv2.distanceTransform(free, cv2.DIST_L2, 5)[1:-1, 1:-1] * GRID_M


def light_volume(scene: Scene, lamp: np.ndarray, window: np.ndarray) -> np.ndarray:
    """(z * y, x, 3) float32: open sky of each voxel, and how much of both lights reaches it."""
    nx, ny, nz = VOXELS
    cell = scene.size / VOXELS
    x, y, z = ((np.arange(n) + 0.5) * c for n, c in zip(VOXELS, cell, strict=True))
    solid = np.zeros((nz, ny, nx), np.float32)
    for center, half, yaw in scene.solids:
        if min(half) < 0.012 and np.sort(half)[1] < 0.05:
            continue
        reach = np.array([half[0] + half[1], half[0] + half[1], half[2]]) + cell
        low = np.maximum(((center - reach) / cell).astype(int), 0)
        high = np.minimum(((center + reach) / cell).astype(int) + 1, VOXELS)
        if (low >= high).any():
            continue
        dx, dy = x[low[0] : high[0]] - center[0], (y[low[1] : high[1]] - center[1])[:, None]
        c, s = math.cos(yaw), math.sin(yaw)
        cover = np.clip((half[0] - np.abs(c * dx + s * dy)) / cell[0] + 0.5, 0, 1)
        cover = cover * np.clip((half[1] - np.abs(c * dy - s * dx)) / cell[1] + 0.5, 0, 1)
        high_z = np.clip((half[2] - np.abs(z[low[2] : high[2]] - center[2])) / cell[2] + 0.5, 0, 1)
        block = solid[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
        np.maximum(block, high_z[:, None, None] * cover, out=block)

    def blur(volume: np.ndarray, outside: float, size: int) -> np.ndarray:
        volume = np.pad(volume, size, constant_values=outside)
        a, b, c = volume.shape
        volume = cv2.blur(volume.reshape(a, b * c), (1, size)).reshape(a * b, c)
        volume = cv2.blur(volume, (size, 1)).reshape(a, b, c).transpose(1, 0, 2)
        volume = cv2.blur(np.ascontiguousarray(volume).reshape(b, a * c), (1, size))
        volume = volume.reshape(b, a, c).transpose(1, 0, 2)
        return volume[size:-size, size:-size, size:-size]

    sky = 1.05 - 0.55 * blur(solid, 1.0, 3) - 0.5 * blur(solid, 1.0, 7)
    channels = [np.clip(sky, 0.1, 1)]
    iz, iy, ix = np.meshgrid(np.arange(nz), np.arange(ny), np.arange(nx), indexing='ij')
    flat, index = solid.ravel(), np.stack([ix, iy, iz]).reshape(3, -1).astype(np.float32)
    air = blur(1 - solid, 0.0, 3) + 1e-3
    for light in (lamp, window):
        target = np.clip(light / cell - 0.5, 0.3, VOXELS - 1.3).astype(np.float32)
        step = (target[:, None] - index) / 14
        length = np.linalg.norm(step, axis=0)
        depth = np.zeros(index.shape[1], np.float32)
        for k in range(1, 13):
            at = (index + step * (k + 0.4) + 0.5).astype(np.int32)
            depth += flat[(at[2] * ny + at[1]) * nx + at[0]] * length
        visible = np.exp(-1.5 * depth).reshape(nz, ny, nx)
        channels.append(blur(visible * (1 - solid), 0.0, 3) / air)
    return np.ascontiguousarray(np.stack(channels, axis=-1), np.float32).reshape(nz * ny, nx, 3)
