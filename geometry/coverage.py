"""What the cameras of a scene see of its grid, and whether the poses make sense.

World units; poses are camera-to-world with OpenCV axes.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from geometry.cameras import focus_point, opengl2opencv

SAMPLES_PER_AXIS = 12  # of the grid, by which the shares below are measured
MIN_SEEN = 0.02  # share of the grid; less gets a warning
MIN_COVERED = 0.9  # share of what a view sees of the grid that its depth planes should cover
# Poses count as misread if the share of cameras that face the grid is larger by this margin in
# another convention.
MISREAD_MARGIN = 0.4


@dataclass(frozen=True)
class Pinhole:
    """A pinhole camera, but for its pose: the 3x3 intrinsic matrix of a square image of
    `sidelength` pixels, whose first pixel spans 0 to 1."""

    matrix: Float[np.ndarray, "3 3"]
    sidelength: int


@dataclass(frozen=True)
class Grid:
    """The voxel grid's cube and the depth planes with which cameras see it, in world units.

    origin: the cube's center. scale: its sidelength. near_plane: z-depth of the first depth plane.
    """

    origin: Float[np.ndarray, "3"]
    scale: float
    near_plane: float

    @property
    def far_plane(self) -> float:
        """The z-depth at which the depth planes end: two sidelengths behind the near plane."""
        return self.near_plane + 2 * self.scale

    def samples(self, per_axis: int = SAMPLES_PER_AXIS) -> Float[np.ndarray, "points 3"]:
        """The centers of per_axis^3 equal cells of the cube."""
        axis = ((np.arange(per_axis) + 0.5) / per_axis - 0.5) * self.scale
        cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
        return cells.reshape(-1, 3) + self.origin

    def corners(self) -> Float[np.ndarray, "8 3"]:
        """The cube's corners; bits 2, 1, 0 of the index give the side along x, y, z."""
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        return self.origin + signs * self.scale / 2


@dataclass(frozen=True)
class Verdict:
    """errors: why training cannot work; warnings: what costs quality. Each line names the culprit
    and the fix.

    blind: indices of the views whose frustum misses the grid.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    blind: list[int] = field(default_factory=list)


def world2pixels(
    points: Float[np.ndarray, "points 3"],
    cam2world: Float[np.ndarray, "views 4 4"],
    matrix: Float[np.ndarray, "3 3"],
) -> tuple[Float[np.ndarray, "views points 2"], Float[np.ndarray, "views points"]]:
    """Pixel coordinates and z-depths of world points in each camera, whose 3x3 intrinsic matrix is
    `matrix`. Pixels are meaningless where depth <= 0.

    In numpy, although `projection.world2image` does the same, because importing torch would slow
    every command down.
    """
    rotation = cam2world[:, :3, :3]
    center = cam2world[:, None, :3, 3]
    # (views, points, 3); the inverse of a rotation is its transpose
    in_camera = (points - center) @ rotation
    depth = in_camera[..., 2]
    safe = np.where(np.abs(depth) > 1e-12, depth, 1e-12)[..., None]
    return in_camera[..., :2] / safe * np.diag(matrix)[:2] + matrix[:2, 2], depth


def visible_depths(
    points: Float[np.ndarray, "points 3"],
    cam2world: Float[np.ndarray, "views 4 4"],
    camera: Pinhole,
) -> tuple[Bool[np.ndarray, "views points"], Float[np.ndarray, "views points"]]:
    """Whether each point lies in front of each camera and inside its image; and its z-depth."""
    pixels, depth = world2pixels(points, cam2world, camera.matrix)
    inside = (pixels >= 0).all(axis=2) & (pixels <= camera.sidelength).all(axis=2)
    return (depth > 0) & inside, depth


def seen_share(
    cam2world: Float[np.ndarray, "views 4 4"], camera: Pinhole, grid: Grid
) -> Float[np.ndarray, "views"]:
    """The share of the grid, sampled, that projects into each image."""
    visible, _ = visible_depths(grid.samples(), cam2world, camera)
    return visible.mean(axis=1)


def covered_share(
    cam2world: Float[np.ndarray, "views 4 4"], camera: Pinhole, grid: Grid
) -> Float[np.ndarray, "views"]:
    """The share of what each view sees of the grid that its depth planes cover; 0 if it sees
    nothing."""
    visible, depth = visible_depths(grid.samples(), cam2world, camera)
    covered = visible & (depth >= grid.near_plane) & (depth <= grid.far_plane)
    return covered.sum(axis=1) / np.maximum(visible.sum(axis=1), 1)


def frustum_meets_grid(
    cam2world: Float[np.ndarray, "views 4 4"], camera: Pinhole, grid: Grid
) -> Bool[np.ndarray, "views"]:
    """Whether each view's frustum, from its first to its last depth plane, and the grid's cube
    overlap. Exact.

    Two convex polyhedra are disjoint only if the normal of a face, or the cross product of an edge
    of each, separates them (separating axis theorem).
    """
    views = len(cam2world)
    matrix = camera.matrix
    pixels = camera.sidelength * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    rays = np.concatenate([(pixels - matrix[:2, 2]) / np.diag(matrix)[:2], np.ones((4, 1))], axis=1)
    rays = rays @ cam2world[:, :3, :3].mT  # (views, 4, 3), along the frustum's long edges
    depths = np.array([grid.near_plane, grid.far_plane])[:, None, None]
    centers = cam2world[:, None, :3, 3] - grid.origin
    corners = (rays[:, None] * depths).reshape(views, 8, 3) + centers
    cube = np.tile(np.eye(3), (views, 1, 1))
    edges = np.concatenate([rays, cam2world[:, :3, :2].mT], axis=1)
    axes = np.concatenate(
        [
            cube,
            cam2world[:, None, :3, 2],
            np.cross(rays, np.roll(rays, 1, axis=1)),
            np.cross(cube[:, :, None], edges[:, None]).reshape(views, 18, 3),
        ],
        axis=1,
    )
    frustum = np.einsum("vac,vkc->vak", axes, corners)
    reach = grid.scale / 2 * np.abs(axes).sum(axis=2)  # of the cube, to both sides of its center
    return ((frustum.min(axis=2) <= reach) & (frustum.max(axis=2) >= -reach)).all(axis=1)


def misread_poses(
    cam2world: Float[np.ndarray, "views 4 4"], target: Float[np.ndarray, "3"]
) -> str | None:
    """Which other convention the poses seem to follow, with the fix, or None: most cameras should
    face the target.

    OpenGL cameras look along -z, so read as OpenCV they all face away from the scene.
    World-to-camera matrices read as camera-to-world face anywhere; their inverses face the target,
    and their viewing axes meet there.
    """
    inverse = np.linalg.inv(cam2world)
    alternatives = {
        "OpenGL or Blender axes (y up, z backward): negate the second and third columns of each "
        "matrix": opengl2opencv(cam2world),
        "world-to-camera: invert each matrix, or add a sixth line holding 1 to "
        "intrinsics.txt": inverse,
        "world-to-camera with OpenGL axes: invert each matrix, then negate its second and third "
        "columns": opengl2opencv(inverse),
    }
    facing = _facing_share(cam2world, target)
    credible = {
        reading: _facing_share(poses, target)
        for reading, poses in alternatives.items()
        if _axes_meet(poses, target)
    }
    reading, best = max(credible.items(), key=lambda entry: entry[1], default=("", 0.0))
    if best < facing + MISREAD_MARGIN:
        return None
    return (
        f"only {facing:.0%} of the cameras face the grid; "
        f"the poses look like {reading} ({best:.0%} then)"
    )


def judge(
    cam2world: Float[np.ndarray, "views 4 4"], camera: Pinhole, grid: Grid, names: list[str]
) -> Verdict:
    """The checks before training. `names` are the views' names for the messages."""
    errors = []
    warnings = []
    sees = seen_share(cam2world, camera, grid)
    covers = covered_share(cam2world, camera, grid)
    misread = misread_poses(cam2world, grid.origin)
    if misread:
        (errors if (sees > 0).mean() < 0.5 else warnings).append(misread)
    if not (sees > 0).any():
        errors.append("no view sees the grid: its origin, its scale or the poses are wrong")
    elif not (covers > 0).any():
        errors.append(
            f"no view's depth planes reach the grid: they span {grid.near_plane:.3g} to "
            f"{grid.far_plane:.3g} from the camera; the near plane is wrong"
        )
    else:
        warnings += _poor_views(sees, covers, grid, names)
    centers = cam2world[:, :3, 3]
    if len(centers) > 1 and np.ptp(centers, axis=0).max() < 1e-6 * grid.scale:
        errors.append("all cameras are in the same place: there is nothing to learn depth from")
    meets = frustum_meets_grid(cam2world, camera, grid)
    return Verdict(errors, warnings, blind=np.flatnonzero(~meets).tolist())


def _poor_views(
    sees: Float[np.ndarray, "views"],
    covers: Float[np.ndarray, "views"],
    grid: Grid,
    names: list[str],
) -> list[str]:
    """Lines on views that see little of the grid, or whose depth planes miss much of what they
    see."""
    lines = []
    few = [name for name, share in zip(names, sees, strict=True) if share < MIN_SEEN]
    if few:
        lines.append(
            f"{len(few)} of {len(names)} views see less than {MIN_SEEN:.0%} of the grid: "
            f"{_first_names(few)}"
        )
    short = [
        name
        for name, share in zip(names, covers, strict=True)
        if share < MIN_COVERED and name not in few
    ]
    if short:
        lines.append(
            f"the depth planes of {len(short)} of {len(names)} views miss more than "
            f"{1 - MIN_COVERED:.0%} of the grid that they see (near plane {grid.near_plane:.3g}, "
            f"scale {grid.scale:.3g}): {_first_names(short)}"
        )
    return lines


def _facing_share(cam2world: np.ndarray, target: np.ndarray) -> float:
    """The share of cameras that have the target within 45 degrees of their viewing direction."""
    offset = target - cam2world[:, :3, 3]
    cosine = (offset * cam2world[:, :3, 2]).sum(axis=1) / (np.linalg.norm(offset, axis=1) + 1e-12)
    return float((cosine > np.cos(np.pi / 4)).mean())


def _axes_meet(cam2world: np.ndarray, target: np.ndarray) -> bool:
    """Whether the viewing axes meet nearer to the target than half the cameras' distance from
    it."""
    distance = np.median(np.linalg.norm(cam2world[:, :3, 3] - target, axis=1))
    return bool(np.linalg.norm(focus_point(cam2world) - target) < 0.5 * distance)


def _first_names(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (
        f" and {len(names) - count} more" if len(names) > count else ""
    )
