"""The loss curve of a run as a picture."""

import json
from pathlib import Path


def read_curve(workdir: Path, split: str, metric: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric, as metrics.jsonl has them."""
    path = workdir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    kept = [row for row in rows if row["split"] == split and metric in row]
    return [row["step"] for row in kept], [row[metric] for row in kept]


def plot_losses(runs: dict[str, Path], path: Path) -> Path:
    """Draws the training and dev losses of runs (title to run directory), side by side, into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(runs), 3.6), layout="constrained")
    for axes, (title, workdir) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        for split, style in (("train", "-"), ("dev", "o--")):
            steps, losses = read_curve(workdir, split, "loss")
            if steps:
                axes.plot(steps, losses, style, label=split, linewidth=1.2, markersize=4)
        axes.set(title=title, xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    return path
