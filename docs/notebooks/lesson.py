"""What how_it_works.py shows: the trained Lego model, the pictures of each part, and sliders that
move them."""

import base64
from collections.abc import Callable
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path

import cv2
import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from data_util import BORDER, crop_border, write_scene_folder
from docs.figures import DPI, EMPTY_GRAY, feature_colors, panels, show_camera, show_slice
from evaluation.picture_grid import evenly_spread, to_uint8
from evaluation.trained import read_checkpoint
from files.folders import new_folder
from projection import lift, lift_coordinates, lift_mask, voxel_centers, world2image
from viewer.features import visibility_weights, voxel_visibility

GATE_COLORS = colormaps["magma"].with_extremes(bad=3 * (EMPTY_GRAY,))
VISIBILITY_VIEWS = 8  # that say which voxels are seen
SMALL = 64  # pixels along each side of the photos that `write_photos` writes


class Lesson:
    """The example scene and its model. The photos are the model's own renderings."""

    def __init__(self, root: Path):
        """Ends the program with one line if the example is not there. root: the repository."""
        self.checkpoint_path = root / "example" / "lego.pth"
        scene = root / "example" / "lego"
        for path in (self.checkpoint_path, scene / "pose", scene / "intrinsics.txt"):
            if not path.exists():
                raise SystemExit(f"{path} is not there: run this in a clone of the repository")
        self.checkpoint = read_checkpoint(self.checkpoint_path)
        self.views = self.checkpoint.load_poses(scene)
        model = self.checkpoint.load_model(self.views.intrinsics, torch.device("cpu"), fast=False)
        self.network = model.network.requires_grad_(False)
        self.geometry = self.network.geometry
        self.poses = self.views.poses(torch.device("cpu"))
        self.photo = cache(self._photo)
        self.visibility = cache(self._visibility)

    @cached_property
    def inpainted(self) -> Float[Tensor, "1 f d d d"]:
        return self.network.inpaint(self.network.deepvoxels)

    @cached_property
    def seen(self) -> Float[Tensor, "d d d"]:
        """The highest visibility that a few views give each voxel, as a share of the highest."""
        poses = self.poses[evenly_spread(len(self.poses), VISIBILITY_VIEWS)]
        seen = torch.stack([voxel_visibility(self.network, pose[None]) for pose in poses])
        return seen.amax(dim=0) / seen.max()

    @cached_property
    def memory_colors(self) -> Float[np.ndarray, "d d d 3"]:
        """The memory as colours, pale where no view finds a voxel visible."""
        memory = self.network.deepvoxels[0]
        colors = feature_colors(memory, memory[:, self.seen > self.seen.median()].T)
        strength = 0.1 + 0.9 * self.seen.numpy()[..., None]
        return colors * strength + 1 - strength

    def _photo(self, view: int) -> Float[Tensor, "1 3 s s"]:
        return with_white_border(self.network.render(self.inpainted, self.poses[view, None]).images)

    # 1: where a voxel falls in a photo

    def draw_voxel(self, x: int, y: int, z: int, view: int = 0) -> Figure:
        """A horizontal slice of the memory with one voxel, and where a photo shows the voxel."""
        point = voxel_centers(self.geometry, like=self.poses)[z, y, x]
        u, v, depth = world2image(point, self.poses[view], self.geometry).tolist()
        figure, (grid, photo) = panels(
            [f"the grid from above, height {z}", f"photo: u = {u:.1f}, v = {v:.1f}"], extra=0.4
        )
        show_slice(grid, self.memory_colors[z])
        show_camera(grid, self.poses[view], self.geometry)
        mark(grid, x, y)
        grid.set_xlabel("x", fontsize=9)
        grid.set_ylabel("y", fontsize=9)
        self.show_photo(photo, view)
        mark(photo, u, v)
        photo.set_xlabel(f"depth = {depth:.2f}", fontsize=9)
        return figure

    def show_photo(self, panel: Axes, view: int) -> None:
        """A photo, its axes in pixels of the feature map."""
        side = self.geometry.map_sidelength
        self.show_on_map(panel, picture(self.photo(view)))
        panel.set_xlim(-0.5, side - 0.5)
        panel.set_ylim(side - 0.5, -0.5)

    def show_on_map(self, panel: Axes, values: Float[np.ndarray, "h w *rgb"], **options) -> None:
        """Pixel i of the feature map has its center at i, as the program has it."""
        side = self.geometry.map_sidelength
        panel.imshow(values, extent=(-0.5, side - 0.5, side - 0.5, -0.5), **options)

    # 2: lifting

    def draw_lifted(self, view: int) -> Figure:
        """A photo, and its colours in three horizontal slices of the grid."""
        levels = [self.geometry.grid_dim * share // 8 for share in (3, 4, 5)]
        uvd = lift_coordinates(self.poses[view], self.geometry)
        side = self.geometry.map_sidelength
        small = F.interpolate(self.photo(view) + 0.5, size=(side, side), mode="area")
        colors = lift(small, uvd)[0].movedim(0, -1).clamp(0, 1).numpy()
        shown = lift_mask(uvd, side)[..., None].numpy()
        colors = np.where(shown, colors, EMPTY_GRAY)
        titles = ["photo", *(f"lifted, height {level}" for level in levels)]
        figure, (photo, *slices) = panels(titles, rows=2)
        self.show_photo(photo, view)
        for panel, level in zip(slices, levels, strict=True):
            show_slice(panel, colors[level])
            show_camera(panel, self.poses[view], self.geometry)
        return figure

    # 3: the memory's gates

    def draw_gates(self, view: int, height: int) -> Figure:
        """What one more photo does to a slice of the memory; gray where it shows nothing."""
        integration = self.network.integrate(self.photo(view), self.poses[view, None])
        change = (integration.volume - self.network.deepvoxels)[0, :, height].norm(dim=0)
        uvd = lift_coordinates(self.poses[view], self.geometry)
        shown = lift_mask(uvd, self.geometry.map_sidelength)[height].numpy()
        figure, (memory, gate, changed) = panels(
            [f"memory, height {height}", "update gate Z", "how far the features move"], extra=0.5
        )
        show_slice(memory, self.memory_colors[height])
        for panel, values in ((gate, integration.update_gate[0, 0, height]), (changed, change)):
            image = show_slice(panel, np.ma.array(values.numpy(), mask=~shown), cmap=GATE_COLORS)
            figure.colorbar(image, ax=panel, fraction=0.046).ax.tick_params(labelsize=8)
            show_camera(panel, self.poses[view], self.geometry)
        return figure

    # 4: occlusion

    def _visibility(self, view: int) -> Float[Tensor, "depth m m"]:
        volumes = self.network.canonical_view_volumes(self.inpainted, self.poses[view, None])
        return visibility_weights(self.network, volumes)[0]

    def draw_ray(self, column: int, row: int, plane: int, view: int = 0) -> Figure:
        """A pixel of a new image, how visible a depth plane is in it, and all planes on its
        ray."""
        weights = self.visibility(view).numpy()
        depths = self.geometry.near_plane + self.geometry.voxel_size * np.arange(len(weights))
        ray = weights[:, row, column]
        figure, (image, on_plane, on_ray) = panels(
            ["the image and one ray", f"visibility on plane {plane}", "visibility on the ray"],
            extra=0.5,
        )
        self.show_photo(image, view)
        self.show_on_map(on_plane, weights[plane], cmap="magma", vmin=0, vmax=1)
        for panel in (image, on_plane):
            mark(panel, column, row)
        on_ray.bar(depths, ray, width=self.geometry.voxel_size, color="C0")
        on_ray.axvline(depths[plane], color="black", linestyle=":", label=f"plane {plane}")
        on_ray.axvline(float(ray @ depths), color="C1", label="mean depth")
        on_ray.set_ylim(0, 1)
        on_ray.set_yticks([0, 0.5, 1])
        on_ray.set_xticks(depths[:: len(depths) // 4].round(1))
        on_ray.set_xlabel("depth, world units", fontsize=9)
        on_ray.tick_params(labelsize=8)
        on_ray.legend(fontsize=8)
        return figure

    # 5: training

    def write_photos(self, folder: Path) -> None:
        """Writes a scene of 64 pixels: `train` and `test`, where every fifth view is held out.
        Keeps one that is there."""
        if folder.exists():
            return
        model = self.checkpoint.load_model(self.views.intrinsics, torch.device("cpu"))
        with torch.inference_mode():
            batches = self.poses.split(10)
            inpainted = model.network.inpaint(model.network.deepvoxels)
            images = torch.cat([model.network.render(inpainted, poses).images for poses in batches])
        photos = [shrunk(picture(image[None])) for image in with_white_border(images)]
        held_out = list(range(0, len(photos), 5))
        training = [view for view in range(len(photos)) if view % 5]
        intrinsics = self.views.intrinsics.resized(SMALL, SMALL)
        with new_folder(folder) as partial:
            for split, views in (("train", training), ("test", held_out)):
                poses = self.views.cam2world[views]
                (partial / split).mkdir()
                write_scene_folder(partial / split, intrinsics, poses, [photos[i] for i in views])


class Sliders(ipywidgets.VBox):
    """Sliders above a picture that they move.

    Where no program is there to move it (the site, a forge), the picture alone is shown.
    """

    def __init__(self, draw: Callable[..., Figure], **ranges: tuple[int, int]):
        """draw: takes the sliders' values by name. ranges: where each slider begins, and how many
        places it has."""
        self.draw = draw
        self.sliders = {
            name: ipywidgets.IntSlider(value=start, min=0, max=count - 1, description=name)
            for name, (start, count) in ranges.items()
        }
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        for slider in self.sliders.values():
            slider.observe(self.redraw, names="value")
        self.redraw()
        super().__init__([*self.sliders.values(), self.picture])

    def redraw(self, *_) -> None:
        values = {name: slider.value for name, slider in self.sliders.items()}
        drawn = BytesIO()
        self.draw(**values).savefig(drawn, dpi=DPI, format="png")
        self.picture.value = drawn.getvalue()

    def _repr_mimebundle_(self, **kwargs) -> dict:
        still = base64.b64encode(self.picture.value).decode()
        return {**(super()._repr_mimebundle_(**kwargs) or {}), "image/png": still}


def mark(panel: Axes, x: float, y: float) -> None:
    panel.plot(x, y, "o", color="red", markeredgecolor="white", markersize=8)


def with_white_border(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
    """Rendered images whose border, which no loss has seen, shows the scene's white background."""
    return F.pad(crop_border(images), 4 * (BORDER,), value=0.5)


def picture(images: Float[Tensor, "1 3 s s"]) -> Float[np.ndarray, "s s 3"]:
    """An image of a network, in [0, 1]."""
    return (images[0].movedim(0, -1) + 0.5).clamp(0, 1).numpy()


def shrunk(image: Float[np.ndarray, "h h 3"]) -> UInt8[np.ndarray, "64 64 3"]:
    return to_uint8(cv2.resize(image, (SMALL, SMALL), interpolation=cv2.INTER_AREA))
