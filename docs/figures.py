"""The pictures of docs/how_it_works.md: one source view and one target view followed through a
trained model.

    python -m docs.figures --checkpoint latest --logging_root demo --out figures

The target is a held-out view where the scene has any. Features are shown as colours: their first
three principal components as red, green and blue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from data_util import BORDER, crop_border, nearest_views
from dataio import Scene, find_split
from deep_voxels import DeepVoxels, Rendering
from evaluation.metrics import load_true_depth
from evaluation.picture_grid import depth_pictures, evenly_spread
from evaluation.render import VIEWS_AT_ONCE
from evaluation.trained import read_checkpoint
from files.runs import find_checkpoint
from machine.cli import Parser, number, run
from projection import (
    SceneGeometry,
    frustum_coordinates,
    frustum_mask,
    lift,
    lift_coordinates,
    lift_mask,
    world2grid,
)
from util import InputError
from viewer.features import (
    VISIBILITY_VIEWS,
    PrincipalColors,
    visibility_weights,
    voxel_visibility,
)

PROG = "docs.figures"
INCH = 2.6  # a panel's side
DPI = 100
EMPTY_GRAY = 0.88  # the gray where there is nothing
PERCENTILES = (1, 99)  # of a principal component, that become dark and full colour


@dataclass(frozen=True)
class Passage:
    """What one source view and one target view become on their way through the model.

    observed: voxels that the source view sees. in_grid: voxels of the canonical view volume that
    lie in the grid. seen: the highest visibility that training views give each voxel of the grid.
    visibility: of each voxel of the target's canonical view volume.
    """

    model: DeepVoxels
    source: Float[Tensor, "1 3 s s"]
    source_pose: Float[Tensor, "1 4 4"]
    truth: Float[Tensor, "1 3 s s"]
    true_depth: Float[np.ndarray, "m m"] | None
    features: Float[Tensor, "1 f m m"]
    observation: Float[Tensor, "1 f d d d"]
    observed: Bool[Tensor, "d d d"]
    update_gate: Float[Tensor, "1 1 d d d"]
    reset_gate: Float[Tensor, "1 1 d d d"]
    inpainted: Float[Tensor, "1 f d d d"]
    seen: Float[Tensor, "d d d"]
    canonical: Float[Tensor, "1 f depth m m"]
    in_grid: Bool[Tensor, "depth m m"]
    visibility: Float[Tensor, "depth m m"]
    rendering: Rendering


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE|latest|best",
        help="a checkpoint of DeepVoxels; 'latest': the newest one under --logging_root, 'best': "
        "the best one of the newest run there",
    )
    parser.add_argument("--logging_root", type=Path, metavar="DIR", help="where 'latest' looks")
    parser.add_argument(
        "--data_root",
        type=Path,
        metavar="DIR",
        help="the scene (default: the one that the checkpoint was trained on)",
    )
    parser.add_argument(
        "--view", type=number(int, 0), default=0, help="index of the target view (default: 0)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the pictures"
    )
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    with torch.inference_mode():
        passage = follow_views(
            find_checkpoint(args.checkpoint, args.logging_root), args.data_root, args.view
        )
        args.out.mkdir(parents=True, exist_ok=True)
        for draw in (draw_features, draw_lifting, draw_gates, draw_volume, draw_ray, draw_render):
            path = args.out / f"{draw.__name__.removeprefix('draw_')}.png"
            draw(passage).savefig(path, dpi=DPI, metadata={"Software": None})
            print(path)


def follow_views(checkpoint_path: Path, data_root: Path | None, view: int) -> Passage:
    """Runs the model's parts one after the other, as `DeepVoxels.forward` does. Dropout is off.

    The target is held-out view `view` of the scene, or of its training folder if there are none;
    the source is the training view nearest to it.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    root = checkpoint.scene_root(data_root)
    sources = checkpoint.load_training_views(root)
    held_out = find_split(root, "test")
    if held_out is None or not (held_out / "rgb").is_dir():
        held_out = root
    targets = checkpoint.load_views(held_out)
    if view >= len(targets):
        raise InputError(f"--view {view}: {targets.root} has {len(targets)} views")
    model = checkpoint.load_model(sources.intrinsics, torch.device("cpu"), fast=False)
    if not model.learns_depth:
        raise InputError(f"{checkpoint_path}: has no occlusion net, whose work the pictures show")
    depth = load_true_depth(held_out / "depth", len(targets), model.geometry.map_sidelength)
    true_depth = None if depth is None else depth[view]
    return pass_through(model.network, sources, targets.subset([view]), true_depth)


def pass_through(
    model: DeepVoxels, sources: Scene, target: Scene, true_depth: Float[np.ndarray, "m m"] | None
) -> Passage:
    """What the target, a single view, and the source nearest to it become."""
    source = int(nearest_views(target.cam2world, sources.cam2world, 1)[0, 0])
    source_views, target_views = (scene.on(torch.device("cpu")) for scene in (sources, target))
    image = source_views.pixels([source])
    source_pose = source_views.poses([source])
    pose = target_views.poses([0])
    uvd = lift_coordinates(source_pose[0], model.geometry)
    features = model.feature_extractor(image)
    observation = lift(features, uvd)
    _, update_gate, reset_gate = model.integration_net(observation, model.deepvoxels)
    inpainted = model.inpaint(model.deepvoxels)
    canonical = model.canonical_view_volumes(inpainted, pose)
    sampled = source_views.poses(evenly_spread(len(sources), VISIBILITY_VIEWS))
    visible = [voxel_visibility(model, poses) for poses in sampled.split(VIEWS_AT_ONCE)]
    in_grid = frustum_mask(frustum_coordinates(pose, model.geometry), model.geometry.grid_dim)
    return Passage(
        model,
        image,
        source_pose,
        target_views.pixels([0]),
        true_depth,
        features,
        observation,
        lift_mask(uvd, model.geometry.map_sidelength),
        update_gate,
        reset_gate,
        inpainted,
        torch.stack(visible).amax(dim=0),
        canonical,
        in_grid[0],
        visibility_weights(model, canonical)[0],
        model.render(inpainted, pose),
    )


def draw_features(passage: Passage) -> Figure:
    figure, (photo, features) = panels(["source view", "its features"])
    photo.imshow(measured_picture(passage.source))
    features.imshow(feature_colors(passage.features[0], passage.features[0].flatten(1).T))
    return figure


def draw_lifting(passage: Passage) -> Figure:
    """The photo's colours, lifted as the features are, and the observation, in three horizontal
    slices."""
    geometry = passage.model.geometry
    levels = slices(passage.model)
    photo = F.interpolate(passage.source + 0.5, size=2 * (geometry.map_sidelength,), mode="area")
    lifted = (
        lift(photo, lift_coordinates(passage.source_pose[0], geometry))[0]
        .movedim(0, -1)
        .clamp(0, 1)
        .numpy()
    )
    features = feature_colors(passage.observation[0], passage.features[0].flatten(1).T)
    figure, axes = panels(
        [
            f"{what} at height {name}"
            for what in ("colours lifted,", "features lifted,")
            for name in levels
        ],
        rows=2,
    )
    for panel, (volume, level) in zip(
        axes, product((lifted, features), levels.values()), strict=True
    ):
        show_slice(panel, np.where(passage.observed[level, ..., None], volume[level], EMPTY_GRAY))
        show_camera(panel, passage.source_pose[0], passage.model.geometry)
    return figure


def draw_gates(passage: Passage) -> Figure:
    """A horizontal slice of both gates."""
    figure, axes = panels(["update gate $Z_t$", "reset gate $R_t$"], extra=0.4)
    for panel, gate in zip(axes, (passage.update_gate, passage.reset_gate), strict=True):
        image = show_slice(
            panel, gate[0, 0, slices(passage.model)["1/2"]].numpy(), cmap="magma", vmin=0
        )
        figure.colorbar(image, ax=panel, fraction=0.046)
        show_camera(panel, passage.source_pose[0], passage.model.geometry)
    return figure


def draw_volume(passage: Passage) -> Figure:
    """The persistent volume and the inpainted one. Voxels that no training view finds visible are
    pale."""
    levels = slices(passage.model)
    visible = (passage.seen / passage.seen.max()).numpy()[..., None]
    figure, axes = panels(
        [f"{what}, height {name}" for what in ("persistent", "inpainted") for name in levels],
        rows=2,
    )
    volumes = []
    for volume in (passage.model.deepvoxels[0], passage.inpainted[0]):
        colors = feature_colors(volume, volume[:, passage.seen > passage.seen.median()].T)
        volumes.append(colors * (0.25 + 0.75 * visible) + 0.75 * (1 - visible))
    for panel, (volume, level) in zip(axes, product(volumes, levels.values()), strict=True):
        show_slice(panel, volume[level])
    return figure


def draw_ray(passage: Passage) -> Figure:
    """A row of the target's feature map: its slice of the canonical view volume, its visibility,
    one pixel's ray."""
    geometry = passage.model.geometry
    row = column = geometry.map_sidelength // 2
    depths = geometry.near_plane + geometry.voxel_size * np.arange(2 * geometry.grid_dim)
    extent = (
        -0.5,
        geometry.map_sidelength - 0.5,
        depths[0] - geometry.voxel_size / 2,
        depths[-1] + geometry.voxel_size / 2,
    )
    figure, (photo, volume, visibility, ray) = panels(
        ["target view, one row", "canonical view volume", "visibility", "visibility along one ray"],
        rows=2,
        extra=0.6,
    )
    photo.imshow(measured_picture(passage.truth))
    scale = passage.truth.shape[-1] / geometry.map_sidelength
    x, y = (
        index * scale - BORDER - 0.5 for index in (column, row)
    )  # imshow draws pixel 0 from -0.5 to 0.5
    photo.axhline(y, color="black", linewidth=1, linestyle="--")
    photo.plot(x, y, "o", color="white", markeredgecolor="black")
    vectors = passage.inpainted[0, :, passage.seen > passage.seen.median()].T
    colors = feature_colors(passage.canonical[0, :, :, row], vectors)
    colors = np.where(passage.in_grid[:, row, :, None], colors, EMPTY_GRAY)
    visible = passage.visibility[:, row].numpy()
    for panel, values, options in ((volume, colors, {}), (visibility, visible, {"cmap": "magma"})):
        panel.imshow(
            values, origin="lower", extent=extent, aspect="auto", interpolation="nearest", **options
        )
        panel.set_xlabel("column of the feature map", fontsize=8)
        panel.axvline(column, color="white", linewidth=1, linestyle="--")
    volume.set_ylabel("depth, world units", fontsize=8)
    volume.set_yticks(np.linspace(depths[0], depths[-1], 5).round(2))
    volume.tick_params(labelsize=7)
    ray.set_xticks(np.linspace(depths[0], depths[-1], 5).round(2))
    ray.set_ylim(0, 1)
    ray.set_yticks([0, 0.5, 1])
    ray.tick_params(labelsize=7)
    ray.plot(depths, visible[:, column], "o-", color="C0", markersize=3, label="softmax weight")
    ray.axvline(
        float(passage.rendering.depth[0, 0, row, column]), color="C1", label="depth: the mean"
    )
    if passage.true_depth is not None:
        visibility.plot(passage.true_depth[row], ".", color="cyan", markersize=3)
        ray.axvline(
            float(passage.true_depth[row, column]),
            color="black",
            linestyle="--",
            label="true surface",
        )
    ray.set_xlabel("depth, world units", fontsize=8)
    ray.legend(fontsize=7)
    return figure


def draw_render(passage: Passage) -> Figure:
    """Render beside truth; depth beside true depth where the scene has any."""
    depths = [("depth", passage.rendering.depth[0, 0].numpy())]
    limits = depths[0][1]
    if passage.true_depth is not None:
        depths.append(("true depth", passage.true_depth))
        limits = passage.true_depth[np.isfinite(passage.true_depth)]
    shown = [
        ("render", measured_picture(passage.rendering.images)),
        ("truth", measured_picture(passage.truth)),
    ]
    shown += [
        (
            title,
            depth_pictures(
                depth, passage.truth.shape[-1], float(limits.min()), float(limits.max())
            ),
        )
        for title, depth in depths
    ]
    figure, axes = panels([title for title, _ in shown], rows=len(shown) // 2)
    for panel, (_, values) in zip(axes, shown, strict=True):
        panel.imshow(values)
    return figure


def panels(titles: Sequence[str], rows: int = 1, extra: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Titled axes without ticks, row by row; `extra` inches wider than high."""
    columns = len(titles) // rows
    figure = Figure(figsize=(columns * (INCH + extra), rows * (INCH + 0.3)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    return figure, axes


def measured_picture(images: Float[Tensor, "1 3 s s"]) -> Float[np.ndarray, "h h 3"]:
    """A frame as it is measured, in [0, 1]."""
    return (crop_border(images)[0].movedim(0, -1) + 0.5).clamp(0, 1).numpy()


def feature_colors(
    features: Float[Tensor, "f *n"], vectors: Float[Tensor, "m f"]
) -> Float[np.ndarray, "*n 3"]:
    """Features as RGB in [0, 1]: by the principal components of these vectors."""
    colors = PrincipalColors(vectors.double().numpy(), percentiles=PERCENTILES)
    return colors(features.movedim(0, -1).double().numpy())


def slices(model: DeepVoxels) -> dict[str, int]:
    """Where horizontal slices are shown: their heights as shares of the grid's, and their
    indices."""
    return {
        f"{quarter}/4".replace("2/4", "1/2"): quarter * model.geometry.grid_dim // 4
        for quarter in (1, 2, 3)
    }


def show_slice(panel: Axes, values: Float[np.ndarray, "d d *rgb"], **options) -> AxesImage:
    """A horizontal slice of a volume, y upward, with a margin for the camera."""
    image = panel.imshow(values.clip(0, 1), origin="lower", **options)
    margin = 0.12 * len(values)
    panel.set_xlim(-0.5 - margin, len(values) - 0.5 + margin)
    panel.set_ylim(-0.5 - margin, len(values) - 0.5 + margin)
    return image


def show_camera(panel: Axes, cam2world: Float[Tensor, "4 4"], geometry: SceneGeometry) -> None:
    """An arrow in a slice's margin, from where a camera looks."""
    half = geometry.grid_dim / 2
    middle = half - 0.5
    camera = world2grid(cam2world[None, :3, 3], geometry)[0, :2].numpy() - half
    edge = camera / np.abs(camera).max() * half
    panel.annotate(
        "",
        xy=middle + 0.93 * edge,
        xytext=middle + 1.22 * edge,
        annotation_clip=False,
        arrowprops={"arrowstyle": "simple", "facecolor": "black", "edgecolor": "white"},
    )


if __name__ == "__main__":
    run(PROG, main)
