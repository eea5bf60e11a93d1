"""An experiment's numbers: averages over seeds, and tables of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.perceptual import NETWORKS
from experiments.plan import Plan, StudyRun
from experiments.status import Result, State, find_result, read_state

GAP = "–"


@dataclass(frozen=True)
class Outcome:
    """The results of the runs that are done, and the states of the others."""

    results: dict[StudyRun, Result]
    missing: dict[StudyRun, State]


def look(plan: Plan, runs: Sequence[StudyRun]) -> Outcome:
    """What has become of the runs so far."""
    results = {run: result for run in runs if (result := find_result(plan.folder(run.name)))}
    return Outcome(
        results, {run: read_state(plan.folder(run.name)) for run in runs if run not in results}
    )


def summarize(runs: Sequence[StudyRun], outcome: Outcome) -> dict:
    """One summary of runs that differ only in their seed: means over the finished runs (None if
    there are none), each seed's own figures, why other runs failed, and the state of those that run
    or wait."""
    done = {run.seed: outcome.results[run] for run in runs if run in outcome.results}
    metrics = [result.metrics for result in done.values()]
    summary = means(metrics, "psnr", "ssim") or {"psnr": None, "ssim": None}
    for name in NETWORKS:
        if any(name in of_run for of_run in metrics):
            of_all = all(name in of_run for of_run in metrics)
            summary[name] = means(metrics, name)[name] if of_all else None
    summary["depth"] = means(
        [of_run["depth"] for of_run in metrics if of_run["depth"]],
        "mean_absolute_error",
        "within_one_voxel",
        "voxel_size",
    )
    summary["parameters"] = metrics[0]["parameters"] if metrics else None
    summary["seeds"] = {
        str(seed): {
            "psnr": result.metrics["psnr"],
            "ssim": result.metrics["ssim"],
            **{name: result.metrics[name] for name in NETWORKS if name in result.metrics},
            "depth": result.metrics["depth"],
            "setbacks": result.metrics.get("setbacks", 0),
            "seconds": result.seconds,
            "frames": str(Path("runs", *result.folder.parts[-4:])),
        }  # under the output folder
        for seed, result in done.items()
    }
    summary["failed"] = {}
    summary["unfinished"] = {}
    for run in runs:
        state = outcome.missing.get(run)
        if state and state.kind == "failed":
            summary["failed"][str(run.seed)] = state.text
        elif state:
            text = f"{state.kind}, {state.text}".removesuffix(", ")
            summary["unfinished"][str(run.seed)] = text
    return summary


def means(figures: list[dict], *names: str) -> dict[str, float] | None:
    """The means of some figures of several runs; None if there are no runs."""
    if not figures:
        return None
    return {name: float(np.mean([of_run[name] for of_run in figures])) for name in names}


def parameters_cell(summaries: list[dict]) -> str:
    """The number of parameters of a model, from the first summary that has one."""
    for summary in summaries:
        if summary["parameters"]:
            return f"{summary['parameters'] / 1e6:.2f} M"
    return GAP


def measures_heading(measures: Sequence[str]) -> str:
    """What `cell` shows."""
    return " / ".join(["PSNR", "SSIM", *(NETWORKS[name].label for name in measures)])


def figures_cell(figures: dict, measures: Sequence[str]) -> str:
    """PSNR / SSIM as the paper writes them, and these measures."""
    more = [figures.get(name) for name in measures]
    shown = [GAP if value is None else f"{value:.3f}" for value in more]
    return " / ".join([f"{figures['psnr']:.2f}", f"{figures['ssim']:.2f}", *shown])


def cell(summary: dict, measures: Sequence[str], best: bool = False) -> str:
    """The figures, with remarks: how many seeds finished if not all did, and how many of these went
    back to a checkpoint, which halves the learning rate."""
    if summary["psnr"] is None:
        return f"{GAP} (failed)" if summary["failed"] else f"{GAP} (not done)"
    text = figures_cell(summary, measures)
    if best:
        text = f"**{text}**"
    remarks = []
    seeds = len(summary["seeds"])
    missing = len(summary["failed"]) + len(summary["unfinished"])
    if missing:
        remarks.append(f"{seeds} of {seeds + missing} seeds")
    went_back = sum(figures["setbacks"] > 0 for figures in summary["seeds"].values())
    if went_back:
        remarks.append(f"{went_back} went back")
    return f"{text} ({', '.join(remarks)})" if remarks else text


def gaps(summaries: dict[str, dict], measures: Sequence[str] = ()) -> str:
    """A list of the runs that failed, one of those that are not done, with the reasons, and one of
    those whose test did not take these measures, from summaries by row name; empty if there are
    none."""
    text = ""
    for title, key in [("Failed", "failed"), ("Not done", "unfinished")]:
        lines = [
            f"- {name}, seed {seed}: {reason}\n"
            for name, summary in summaries.items()
            for seed, reason in summary[key].items()
        ]
        text += f"\n{title}:\n\n" + "".join(lines) if lines else ""
    for measure in measures:
        lines = [
            f"- {name}, seed {seed}: {figures['frames']}\n"
            for name, summary in summaries.items()
            for seed, figures in summary["seeds"].items()
            if measure not in figures
        ]
        title = f"Tested without --{measure}; repeat the last command in commands.json with it"
        text += f"\n{title}:\n\n" + "".join(lines) if lines else ""
    return text


def latex_tables(markdown: str) -> str:
    """The tables of a text in Markdown, for LaTeX with its package booktabs."""
    tables = []
    for block in markdown.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if not lines:
            continue
        header, _, *rows = (
            " & ".join(latex_cell(text.strip()) for text in line.split("|")[1:-1]) + r" \\"
            for line in lines
        )
        columns = "l" + "c" * (lines[0].count("|") - 2)
        begin = rf"\begin{{tabular}}{{{columns}}}"
        body = [r"\toprule", header, r"\midrule", *rows, r"\bottomrule"]
        tables.append("\n".join([begin, *body, r"\end{tabular}", ""]))
    return "\n".join(tables)


def latex_cell(text: str) -> str:
    """A cell of a table in Markdown, its special characters escaped and bold text bold."""
    text = re.sub(r"[&%$#_{}]", r"\\\g<0>", text.replace("\\", "/").replace(GAP, "--"))
    return re.sub(r"\*\*(.*?)\*\*", r"\\textbf{\1}", text)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
