"""An experiment's numbers: averages over seeds, and tables of them."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.runner import Result, Run

GAP = "–"


def summarize(runs: Sequence[Run], results: dict[Run, Result], failed: dict[Run, str]) -> dict:
    """One summary of runs that differ only in their seed: means over the finished runs (None if there are none), each
    seed's own figures, and why the other runs failed."""
    done = {run.seed: results[run] for run in runs if run in results}
    summary = {name: float(np.mean([result.metrics[name] for result in done.values()])) if done else None
               for name in ("psnr", "ssim")}
    depths = [result.metrics["depth"] for result in done.values() if result.metrics["depth"]]
    summary["depth"] = {name: float(np.mean([depth[name] for depth in depths]))
                        for name in ("mean_absolute_error", "within_one_voxel", "voxel_size")} if depths else None
    summary["parameters"] = next((result.metrics["parameters"] for result in done.values()), None)
    summary["seeds"] = {str(seed): {
        "psnr": result.metrics["psnr"], "ssim": result.metrics["ssim"], "depth": result.metrics["depth"],
        "seconds": result.seconds, "frames": str(Path("runs", *result.folder.parts[-4:]))}  # under the output folder
        for seed, result in done.items()}
    summary["failed"] = {str(run.seed): failed.get(run, "was not run") for run in runs if run not in results}
    return summary


def cell(summary: dict, best: bool = False) -> str:
    """PSNR / SSIM as the paper writes them, and how many seeds finished if not all did."""
    if summary["psnr"] is None:
        return f"{GAP} (failed)"
    text = f"{summary['psnr']:.2f} / {summary['ssim']:.2f}"
    seeds = len(summary["seeds"]) + len(summary["failed"])
    return (f"**{text}**" if best else text) + (
        f" ({len(summary['seeds'])} of {seeds} seeds)" if summary["failed"] else "")


def failures(summaries: dict[str, dict]) -> str:
    """A list of the failed runs and the reasons, from summaries by row name; empty if none failed."""
    lines = [f"- {name}, seed {seed}: {reason}\n" for name, summary in summaries.items()
             for seed, reason in summary["failed"].items()]
    return "\nFailed:\n\n" + "".join(lines) if lines else ""


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
