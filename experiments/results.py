"""An experiment's numbers: averages over seeds, and tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.plan import Plan, Run
from experiments.status import Result, State, find_result, read_state

GAP = "–"


@dataclass(frozen=True)
class Outcome:
    """The results of the runs that are done, and the states of the others."""

    results: dict[Run, Result]
    missing: dict[Run, State]


def look(plan: Plan, runs: Sequence[Run]) -> Outcome:
    """What has become of the runs so far."""
    results = {run: result for run in runs if (result := find_result(plan.folder(run.name)))}
    return Outcome(
        results, {run: read_state(plan.folder(run.name)) for run in runs if run not in results}
    )


def summarize(runs: Sequence[Run], outcome: Outcome) -> dict:
    """One summary of runs that differ only in their seed: means over the finished runs (None if
    there are none), each seed's own figures, why other runs failed, and the state of those that run
    or wait."""
    done = {run.seed: outcome.results[run] for run in runs if run in outcome.results}
    summary = {
        name: float(np.mean([result.metrics[name] for result in done.values()])) if done else None
        for name in ("psnr", "ssim")
    }
    depths = [result.metrics["depth"] for result in done.values() if result.metrics["depth"]]
    summary["depth"] = (
        {
            name: float(np.mean([depth[name] for depth in depths]))
            for name in ("mean_absolute_error", "within_one_voxel", "voxel_size")
        }
        if depths
        else None
    )
    summary["parameters"] = next((result.metrics["parameters"] for result in done.values()), None)
    summary["seeds"] = {
        str(seed): {
            "psnr": result.metrics["psnr"],
            "ssim": result.metrics["ssim"],
            "depth": result.metrics["depth"],
            "setbacks": result.metrics.get("setbacks", 0),
            "seconds": result.seconds,
            "frames": str(Path("runs", *result.folder.parts[-4:])),
        }  # under the output folder
        for seed, result in done.items()
    }
    missing = [(run.seed, outcome.missing[run]) for run in runs if run in outcome.missing]
    summary["failed"] = {str(seed): state.text for seed, state in missing if state.kind == "failed"}
    summary["unfinished"] = {
        str(seed): f"{state.kind}, {state.text}".removesuffix(", ")
        for seed, state in missing
        if state.kind != "failed"
    }
    return summary


def cell(summary: dict, best: bool = False) -> str:
    """PSNR / SSIM as the paper writes them, how many seeds finished if not all did, and how many of
    these went back to a checkpoint, which halves the learning rate."""
    gaps = len(summary["failed"]) + len(summary["unfinished"])
    if summary["psnr"] is None:
        return f"{GAP} (failed)" if summary["failed"] else f"{GAP} (not done)"
    text = f"{summary['psnr']:.2f} / {summary['ssim']:.2f}"
    seeds = len(summary["seeds"])
    went_back = sum(figures["setbacks"] > 0 for figures in summary["seeds"].values())
    remarks = [f"{seeds} of {seeds + gaps} seeds"] * (gaps > 0) + [f"{went_back} went back"] * (
        went_back > 0
    )
    return (f"**{text}**" if best else text) + (f" ({', '.join(remarks)})" if remarks else "")


def gaps(summaries: dict[str, dict]) -> str:
    """A list of the runs that failed and one of those that are not done, with the reasons, from
    summaries by row name; empty if all are done."""
    text = ""
    for title, key in [("Failed", "failed"), ("Not done", "unfinished")]:
        lines = [
            f"- {name}, seed {seed}: {reason}\n"
            for name, summary in summaries.items()
            for seed, reason in summary[key].items()
        ]
        text += f"\n{title}:\n\n" + "".join(lines) if lines else ""
    return text


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
