"""The plot of a run: throughput and latency against concurrency, and the steps of an image."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.results import TITLES, Report

STEPS = ("queue", "decode", "letterbox", "triton", "nms")


def draw(report: Report, folder: Path) -> None:
    """Write throughput.png and throughput.svg."""
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    _throughput(report, left)
    _latencies(report, middle)
    _steps(report, right)
    figure.suptitle(f"{report.model}, {report.machine}")
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"throughput.{suffix}", dpi=120)
    pyplot.close(figure)


def _throughput(report: Report, axes: Axes) -> None:
    for name, points in report.closed.items():
        axes.plot(list(points), [point.rate for point in points.values()], marker="o", label=TITLES[name])
    for name, arm in report.arms.items():
        if name not in report.closed and arm.rates:
            axes.axhline(sorted(arm.rates)[len(arm.rates) // 2], linestyle=":", color="grey")
            axes.annotate(TITLES[name], (1, sorted(arm.rates)[len(arm.rates) // 2]), fontsize=7, va="bottom")
    axes.set(xlabel="clients", ylabel="images/s", xscale="log", title="throughput")
    _ticks(axes, list(report.closed["ours"]))
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)


def _latencies(report: Report, axes: Axes) -> None:
    points = report.closed["ours"]
    for name in ("p50", "p95", "p99"):
        axes.plot(list(points), [getattr(point, name) for point in points.values()], marker="o", label=name)
    axes.set(xlabel="clients", ylabel="ms", xscale="log", yscale="log", title="latency, closed loop")
    _ticks(axes, list(points))
    axes.legend(fontsize=7)


def _ticks(axes: Axes, clients: list[int]) -> None:
    axes.set_xticks(clients, [str(each) for each in clients])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)


def _steps(report: Report, axes: Axes) -> None:
    columns = {f"{clients} clients": report.steps_ms[clients] for clients in sorted(report.steps_ms)}
    if report.large_steps_ms:
        columns["12 Mpx"] = report.large_steps_ms
    heights = [0.0] * len(columns)
    for step in STEPS:
        values = [column.get(step, 0.0) for column in columns.values()]
        axes.bar(list(columns), values, bottom=heights, label=step)
        heights = [height + value for height, value in zip(heights, values, strict=True)]
    axes.set(ylabel="ms per image", title="where the time goes")
    axes.legend(fontsize=7)
