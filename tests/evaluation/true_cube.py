"""The cube of `scenes.render`: its true surface, and views of it with true depth."""

import numpy as np
import torch
import trimesh
from scipy.spatial import KDTree

from data_util import SceneIntrinsics
from dataio import scene_geometry
from evaluation.fusion import Cloud
from geometry.cameras import hemisphere, look_at
from geometry.coverage import world2pixels
from scenes.synthetic.objects import cube
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface

INTRINSICS = SceneIntrinsics(64.0, 32.0, 32.0, (0.0, 0.0, 0.0), 1.0, 1.6, 64, 64)
UP = np.array([0.0, 0.0, 1.0])


class Truth:
    """The cube's surface as points spread evenly over it, and those of them that views see."""

    def __init__(self, cam2world, intrinsics):
        mesh = trimesh.util.concatenate(
            [trimesh.Trimesh(side.vertices, side.faces) for side in cube()]
        )
        self.points, faces = trimesh.sample.sample_surface(mesh, 100_000, seed=0)
        self.normals = mesh.face_normals[faces]
        some = self.points[::20]
        size = 128
        caster = RayCaster(Surface.from_meshes(cube()))
        matrix = intrinsics.matrix(size)
        visible = np.zeros(len(some), bool)
        for pose in cam2world:
            (pixels,), (depth,) = world2pixels(some, pose[None], matrix)
            column, row = np.floor(pixels).astype(int).clip(0, size - 1).T
            hit = caster.depth(pose, matrix, size)[row, column]
            visible |= (
                (np.abs(hit - depth) < 0.02)
                & (pixels >= 0).all(axis=1)
                & (pixels < size).all(axis=1)
            )
        self.visible = some[visible]

    def distances(self, points):
        """From each of some points to the surface, and from each visible point of the surface to
        the nearest of them."""
        return KDTree(self.points).query(points)[0], KDTree(points).query(self.visible)[0]

    def angles(self, cloud: Cloud):
        """Between each normal of the cloud and that of the surface beside it, in degrees."""
        normals = self.normals[KDTree(self.points).query(cloud.points)[1]]
        return np.degrees(np.arccos(np.clip((normals * cloud.normals).sum(axis=1), -1, 1)))


def true_cube_views():
    """Depth, colours, poses and geometry of 30 views of the cube, red on a white background of
    random depth; the truth.

    A pixel's depth is the mean over its area, as a model's is: between the surfaces where it
    straddles an edge.
    """
    cam2world = look_at(hemisphere(30, 2.0, seed=0), np.zeros(3), UP)
    geometry = scene_geometry(INTRINSICS, grid_dim=16, map_sidelength=32, default_near_plane=1.0)
    caster = RayCaster(Surface.from_meshes(cube()))
    fine = 4
    matrix = INTRINSICS.matrix(32)
    matrix[:2, 2] += 0.5  # a map's pixel is seen along the ray through its integer coordinate
    matrix[:2] *= fine
    generator = np.random.default_rng(0)
    maps = np.stack([caster.depth(pose, matrix, 32 * fine) for pose in cam2world])
    background = np.isinf(maps)
    anywhere = (
        generator.uniform(1, 1 + 2 * INTRINSICS.scale, (30, 32, 32))
        .repeat(fine, axis=1)
        .repeat(fine, axis=2)
    )
    maps[background] = anywhere[background]
    depth, share = (
        values.reshape(30, 32, fine, 32, fine).mean(axis=(2, 4)) for values in (maps, background)
    )
    colors = np.stack([np.ones_like(share), share, share], axis=-1)
    tensors = (torch.from_numpy(array).float() for array in (depth, colors, cam2world))
    return *tensors, geometry, Truth(cam2world, INTRINSICS)
