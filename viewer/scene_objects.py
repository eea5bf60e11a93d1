"""What the browser draws over the picture: the grid's box, the training cameras with their photos,
sparse points."""

import cv2
import numpy as np
import viser
from jaxtyping import Float, UInt8

from data_util import BORDER
from evaluation.picture_grid import evenly_spread
from geometry.coverage import Grid
from viewer.camera import to_wxyz
from viewer.picture_choices import photo
from viewer.scene import SceneInView

ROOT = "/scene"  # the parent of all of them, hidden where they would not fall on the picture
BOX_COLOR = (215, 60, 40)
CAMERA_COLOR = (40, 110, 200)
MAX_CAMERAS = 200  # more make a browser slow
PHOTO_PIXELS = 96


def box_edges(grid: Grid) -> Float[np.ndarray, "12 2 3"]:
    """The edges of the grid's cube. The corners of an edge differ along one axis."""
    corners = grid.corners()
    return np.stack(
        [
            corners[[corner, corner | bit]]
            for corner in range(8)
            for bit in (1, 2, 4)
            if not corner & bit
        ]
    )


def add_box(api: viser.SceneApi, scene: SceneInView) -> viser.SceneNodeHandle:
    """The grid's box, with the world's axes at its lowest corner."""
    grid = scene.intrinsics.grid()
    scale = grid.scale
    lowest_corner = grid.corners()[0]
    frame = api.add_frame(
        f"{ROOT}/box",
        position=lowest_corner,
        axes_length=0.12 * scale,
        axes_radius=0.004 * scale,
        origin_radius=0.006 * scale,
    )
    api.add_line_segments(
        f"{ROOT}/box/edges",
        box_edges(grid) - lowest_corner,
        BOX_COLOR,
        thickness=1.5,
        thickness_units="screen",
    )
    return frame


def add_cameras(api: viser.SceneApi, scene: SceneInView) -> viser.SceneNodeHandle:
    """The training cameras, at most `MAX_CAMERAS` of them, with their photos."""
    parent = api.add_frame(f"{ROOT}/cameras", show_axes=False)
    for view in evenly_spread(len(scene.views), MAX_CAMERAS):
        add_camera(
            api,
            f"{ROOT}/cameras/{view}",
            scene,
            scene.views.cam2world[view],
            color=CAMERA_COLOR,
            image=None if scene.views.images is None else thumbnail(photo(scene.views, view)),
        )
    return parent


def add_camera(
    api: viser.SceneApi,
    name: str,
    scene: SceneInView,
    cam2world: Float[np.ndarray, "4 4"],
    **look,
) -> viser.CameraFrustumHandle:
    """A camera with the scene's field of view. look: `color` and `image`, as viser takes them."""
    fov = 2 * np.arctan((scene.lens.sidelength / 2 - BORDER) / scene.lens.focal)
    return api.add_camera_frustum(
        name,
        fov,
        1.0,
        scale=0.08 * scene.intrinsics.scale,
        thickness=1.5,
        thickness_units="screen",
        wxyz=to_wxyz(cam2world),
        position=cam2world[:3, 3],
        cast_shadow=False,
        receive_shadow=False,
        **look,
    )


def thumbnail(picture: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "t t 3"]:
    """A small copy of a picture, or the picture if it is small."""
    if picture.shape[0] <= PHOTO_PIXELS:
        return picture
    return cv2.resize(picture, (PHOTO_PIXELS, PHOTO_PIXELS), interpolation=cv2.INTER_AREA)


def add_points(
    api: viser.SceneApi,
    name: str,
    points: Float[np.ndarray, "points 3"],
    colors: UInt8[np.ndarray, "points 3"],
    size: float,
) -> viser.PointCloudHandle:
    """A point cloud; `size` in world units."""
    return api.add_point_cloud(
        name,
        points,
        colors,
        point_size=size,
        point_shape="circle",
        precision="float32",
        point_shading="flat",
    )
