"""Which triangle the ray through each pixel hits first: by Embree or, where it has no wheel, by a
z-buffer in numpy.

Both give the same hits, up to rounding; the z-buffer is a few times slower.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

try:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
except ImportError:
    EmbreeScene = None

PAIRS_AT_ONCE = 2**20  # of a triangle and a pixel, in the z-buffer; bounds its memory


class Hits(NamedTuple):
    """The first triangle at each pixel (-1 if none), its z-depth there (infinite if none), and
    barycentric weights."""

    triangle: Int[np.ndarray, "rays"]
    depth: Float32[np.ndarray, "rays"]
    weights: Float32[np.ndarray, "rays 3"]


class Camera(NamedTuple):
    """A pinhole camera and its count x count rays, spread evenly over a square image of
    `sidelength` pixels.

    `matrix` is the image's intrinsic matrix; the first pixel spans 0 to 1. Rays go row by row.
    """

    cam2world: Float[np.ndarray, "4 4"]
    matrix: Float[np.ndarray, "3 3"]
    sidelength: int
    count: int

    def slopes(self) -> tuple[Float[np.ndarray, "count"], Float[np.ndarray, "count"]]:
        """x and y of the rays' directions in camera axes, by column and by row; z is 1."""
        coordinates = (np.arange(self.count) + 0.5) * (self.sidelength / self.count)
        return (
            (coordinates - self.matrix[0, 2]) / self.matrix[0, 0],
            (coordinates - self.matrix[1, 2]) / self.matrix[1, 1],
        )

    def directions(self) -> Float32[np.ndarray, "rays 3"]:
        """The rays' world directions. They have unit z in camera axes, so that a ray's parameter is
        its z-depth."""
        right, down, forward = self.cam2world[:3, :3].T
        x, y = self.slopes()
        along = np.outer(y, down) + forward
        return (along.astype(np.float32)[:, None] + np.outer(x, right).astype(np.float32)).reshape(
            -1, 3
        )


class EmbreeCaster:
    """First hits by Embree, whose structures cannot be pickled: each process builds its own."""

    def __init__(self, corners: Float32[np.ndarray, "faces 3 3"]):
        self._scene = EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(corners))

    def first_hits(self, camera: Camera) -> Hits:
        directions = camera.directions()
        origins = np.broadcast_to(camera.cam2world[:3, 3].astype(np.float32), directions.shape)
        hits = self._scene.run(np.ascontiguousarray(origins), directions, output=1)
        weights = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], axis=1)
        return Hits(
            hits["primID"], np.where(hits["primID"] >= 0, hits["tfar"], np.float32(np.inf)), weights
        )


class ZBufferCaster:
    """First hits by testing each triangle at the pixels of its bounding box and keeping the
    nearest."""

    def __init__(self, corners: Float32[np.ndarray, "faces 3 3"]):
        self._corners = corners.astype(np.float64)

    def first_hits(self, camera: Camera) -> Hits:
        corners = (self._corners - camera.cam2world[:3, 3]) @ camera.cam2world[
            :3, :3
        ]  # in camera axes
        # A ray's direction times these is the weight of each corner, up to one factor for all
        # three.
        planes = np.cross(np.roll(corners, -1, axis=1), np.roll(corners, -2, axis=1))
        volume = (corners[:, 0] * planes[:, 0]).sum(axis=1)
        low, high = _bounding_boxes(corners, camera)
        width, height = (high - low + 1).clip(0).T
        hits = Hits(
            np.full(camera.count**2, -1),
            np.full(camera.count**2, np.inf, np.float32),
            np.zeros((camera.count**2, 3), np.float32),
        )
        x, y = camera.slopes()
        visible = np.flatnonzero(width * height)
        blocks = np.cumsum((width * height)[visible]) // PAIRS_AT_ONCE
        for faces in np.split(visible, np.flatnonzero(np.diff(blocks)) + 1):
            sizes = width[faces] * height[faces]
            face = np.repeat(faces, sizes)
            position = np.arange(len(face)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            row = low[face, 1] + position // width[face]
            column = low[face, 0] + position % width[face]
            weights = (
                planes[face, :, 0] * x[column, None]
                + planes[face, :, 1] * y[row, None]
                + planes[face, :, 2]
            )
            inside = ((weights >= 0).all(axis=1) | (weights <= 0).all(axis=1)) & weights.any(axis=1)
            face = face[inside]
            weights = weights[inside]
            pixel = (row * camera.count + column)[inside]
            total = weights.sum(axis=1)
            depth = volume[face] / total
            order = np.lexsort((depth, pixel))
            pixel, first = np.unique(pixel[order], return_index=True)
            chosen = order[first]
            nearer = (depth[chosen] > 0) & (depth[chosen] < hits.depth[pixel])
            pixel = pixel[nearer]
            chosen = chosen[nearer]
            hits.triangle[pixel] = face[chosen]
            hits.depth[pixel] = depth[chosen]
            hits.weights[pixel] = weights[chosen] / total[chosen, None]
        return hits


def _bounding_boxes(
    corners: Float[np.ndarray, "faces 3 3"], camera: Camera
) -> tuple[Int[np.ndarray, "faces 2"], Int[np.ndarray, "faces 2"]]:
    """The first and the last column and row that each triangle may cover: all for one that reaches
    behind the camera."""
    in_front = (corners[..., 2] > 0).all(axis=1)[:, None]
    image = corners @ camera.matrix.T
    depth = np.where(in_front[..., None], image[..., 2:], 1)
    pixel = image[..., :2] / depth * (camera.count / camera.sidelength) - 0.5
    low = np.where(in_front, pixel.min(axis=1), 0).clip(0, camera.count)
    high = np.where(in_front, pixel.max(axis=1), camera.count).clip(-1, camera.count - 1)
    return np.ceil(low).astype(int), np.floor(high).astype(int)


Caster = ZBufferCaster if EmbreeScene is None else EmbreeCaster
