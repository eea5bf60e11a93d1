"""The paper's study of occlusion reasoning (section 4, Figure 5): DeepVoxels with and without its
occlusion network.

    python -m experiments.occlusion --scenes data/cube --steps 3000 --seeds 0 1
        --out results/occlusion --size small

Writes occlusion.md, occlusion.json and figure.png: images and depth for a few views. Depth is
measured if the scene has test/depth/*.npz. Repeating the command runs what is missing.
"""

from argparse import Namespace

import numpy as np

from dataio import Scene
from evaluation.metrics import load_true_depth
from evaluation.picture_grid import depth_pictures, evenly_spread
from experiments.figures import VIEWS_SHOWN, load_test_views, truth_and_frames, write_figure
from experiments.plan import SceneData, StudyRun
from experiments.results import (
    GAP,
    cell,
    gaps,
    markdown_table,
    measures_heading,
    parameters_cell,
)
from experiments.status import Result
from experiments.study import Collected, Groups, Scenes, Study
from machine.cli import run

VARIANTS = {"with": (), "without": ("--no_occlusion_net",)}
PAPER = {
    "cube": {"with": 28.42, "without": 23.26},
    "pedestal": {"with": 32.35, "without": 30.02},
}  # PSNR
COLUMNS = ["truth", "true depth", "with occlusion net", "its depth", "without occlusion net"]


class Occlusion(Study):
    name = "occlusion"
    table = "occlusion"
    doc = __doc__
    reserved = frozenset({"no_occlusion_net"})

    def plan_runs(self, args: Namespace, scenes: Scenes) -> Groups:
        return {
            (scene, variant): [
                StudyRun(scene, data, variant, seed, flags=flags) for seed in args.seeds
            ]
            for scene, data in scenes.items()
            for variant, flags in VARIANTS.items()
        }

    def tables(self, collected: Collected) -> tuple[dict, str]:
        table = {
            scene: {variant: collected.summary((scene, variant)) for variant in VARIANTS}
            for scene in collected.scenes
        }
        by_name = {
            (scene, variant): summary
            for scene, variants in table.items()
            for variant, summary in variants.items()
        }
        measures = collected.measures
        header = ["Scene", "Occlusion net", "Parameters", measures_heading(measures)]
        header += ["Depth error (voxels)", "Within one voxel"]
        rows = [
            [
                *names,
                parameters_cell([summary]),
                cell(summary, measures),
                *depth_cells(summary["depth"]),
            ]
            for names, summary in by_name.items()
        ]
        paper = [
            [scene, f"{psnr['with']:.2f}", f"{psnr['without']:.2f}"]
            for scene, psnr in PAPER.items()
        ]
        text = (
            markdown_table(header, rows)
            + gaps({", ".join(names): summary for names, summary in by_name.items()}, measures)
            + "\nThe paper's own PSNR, on its own renders at 512 pixels, for reference:\n\n"
            + markdown_table(["Scene", "with", "without"], paper)
        )
        return {"scenes": table, "paper": PAPER}, text

    def draw(self, collected: Collected) -> None:
        """Writes figure.png, from the first seed's runs. The depth of the background is
        undetermined (paper, Figure 5)."""
        rows = []
        for scene, data in collected.scenes.items():
            full = collected.first((scene, "with"))
            flat = collected.first((scene, "without"))
            if not full and not flat:
                continue
            views = load_test_views(data, full or flat)
            true_depth, depth = color_depths(full, views, data) if full else (None, None)
            for view in evenly_spread(len(views), VIEWS_SHOWN):
                truth, with_net, without_net = truth_and_frames(views, view, [full, flat])
                pictures = [
                    truth,
                    None if true_depth is None else true_depth[view],
                    with_net,
                    None if depth is None else depth[view],
                    without_net,
                ]
                rows.append((f"{scene} {views.names[view]}", pictures))
        write_figure(collected.args.out / "figure.png", COLUMNS, rows)


def depth_cells(depth: dict | None) -> list[str]:
    """The mean error of depth over the object, in voxels, and the share of its pixels with an error
    of at most one."""
    if depth is None:
        return [GAP, GAP]
    return [
        f"{depth['mean_absolute_error'] / depth['voxel_size']:.2f}",
        f"{100 * depth['within_one_voxel']:.1f} %",
    ]


def color_depths(
    result: Result, views: Scene, data: SceneData
) -> tuple[np.ndarray | None, np.ndarray]:
    """The true depth, if it is known, and a run's, in the same colours."""
    depth = np.load(result.folder / "depth_metric.npz")["depth"]
    truth = load_true_depth(data.test / "depth", len(views), depth.shape[-1])
    shown = depth
    if truth is not None and np.isfinite(truth).any():
        shown = truth[np.isfinite(truth)]
    scale = views.images.shape[-1], float(shown.min()), float(shown.max())
    return None if truth is None else depth_pictures(truth, *scale), depth_pictures(depth, *scale)


main = Occlusion().main

if __name__ == "__main__":
    run("experiments.occlusion", main)
