"""Figures of a run, the goals held against them, and their Markdown and JSON."""

import statistics
from pathlib import Path

import msgspec

from benchmarks.load import Sample

TITLES = {
    "ours": "this service, upload to result",
    "triton": "Triton alone, ready tensors over gRPC",
    "onnxruntime": "ONNX Runtime alone, 2 sessions of 1 thread",
    "litserve": "LitServe",
    "mosec": "mosec",
    "flask_celery": "Flask + Celery + PyTorch",
}

# What `benchmarks.costs` measures with a model that costs nothing.
AROUND = (
    "a model that costs nothing | ms of CPU an image | images/s | p50 of one client, ms "
    "| this ÷ it: CPU | images/s | p50 | wrong | parts"
)


class Latency(msgspec.Struct):
    """Right answers a second, and milliseconds."""

    rate: float
    p50: float
    p95: float
    p99: float
    count: int


class ArmFigures(msgspec.Struct):
    """Images a second of each turn; `objects` is how many were found in one pass over the photographs."""

    objects: int = 0
    rates: list[float] = msgspec.field(default_factory=list)
    large_rates: list[float] = msgspec.field(default_factory=list)
    alone_p50_ms: list[float] = msgspec.field(default_factory=list)
    wrong: int = 0
    failed: int = 0
    first_failure: str = ""
    skipped: str = ""


class Report(msgspec.Struct):
    """All figures of one run. Loads are the machine's load average over a minute."""

    machine: str
    model: str
    images: int
    began: str
    load_before: float
    load_after: float = 0.0
    seconds: float = 0.0
    arms: dict[str, ArmFigures] = msgspec.field(default_factory=dict)
    closed: dict[str, dict[int, Latency]] = msgspec.field(default_factory=dict)
    open_loop: dict[int, Latency] = msgspec.field(default_factory=dict)
    steps_ms: dict[int, dict[str, float]] = msgspec.field(default_factory=dict)
    large_steps_ms: dict[str, float] = msgspec.field(default_factory=dict)
    cpu_ms: dict[str, float] = msgspec.field(default_factory=dict)
    memory_mb: dict[str, float] = msgspec.field(default_factory=dict)
    queued_ms: dict[int, dict[str, float]] = msgspec.field(default_factory=dict)
    around_the_model: list[str] = msgspec.field(default_factory=list)
    goals: "list[Goal]" = msgspec.field(default_factory=list)


class Goal(msgspec.Struct):
    """A figure and what it is to be. `spread` is the least and the greatest of the turns."""

    figure: str
    goal: str
    value: float
    met: bool
    spread: tuple[float, float] | None = None


def latency_of(sample: Sample) -> Latency:
    ordered = sorted(sample.latencies_ms)
    p50, p95, p99 = (percentile(ordered, share) for share in (50, 95, 99))
    return Latency(sample.rate, p50, p95, p99, len(ordered))


def percentile(ordered: list[float], share: float) -> float:
    """The least value that `share` percent do not exceed; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[max(-int(-len(ordered) * share // 100) - 1, 0)]


def judge(report: Report) -> list[Goal]:
    """The goals that this run can tell something of; ratios are of the arms' turns of the same round."""
    ours = report.arms["ours"]
    goals = []
    for name, least in (("litserve", 1.0), ("mosec", 1.0), ("flask_celery", 2.5)):
        goals += _ratio(f"images/s ÷ {TITLES[name]}'s", ours.rates, report.arms[name].rates, least)
    for name in ("litserve", "mosec"):
        figure = f"images/s ÷ {TITLES[name]}'s, 12 Mpx photographs"
        goals += _ratio(figure, ours.large_rates, report.arms[name].large_rates, 1.5)
    goals += _ratio("images/s ÷ bare ONNX Runtime's", ours.rates, report.arms["onnxruntime"].rates, 0.75)
    goals += _ratio("images/s ÷ Triton's alone", ours.rates, report.arms["triton"].rates, 0.90)
    alone = [a - b for a, b in zip(ours.alone_p50_ms, report.arms["triton"].alone_p50_ms, strict=False)]
    goals += _at_most("p50 of one client minus Triton's alone, ms", alone, 15)
    outside = [report.cpu_ms[role] for role in ("gateway", "worker", "redis") if role in report.cpu_ms]
    goals += _at_most("CPU per image of gateway, worker and Redis, 640x480, ms", [sum(outside)] if outside else [], 7)
    for role, most in (("gateway", 90), ("worker", 120)):
        values = [report.memory_mb[role]] if role in report.memory_mb else []
        goals += _at_most(f"memory of a {role} process, MB", values, most)
    if len(report.queued_ms) > 1:
        few, many = report.queued_ms[min(report.queued_ms)], report.queued_ms[max(report.queued_ms)]
        ratio = sum(many.values()) / max(sum(few.values()), 1e-9)
        goals += _at_most("CPU of a task with 10,000 queued ÷ with 100", [ratio], 1.1)
    return goals


def _ratio(figure: str, ours: list[float], others: list[float], least: float) -> list[Goal]:
    ratios = [mine / other for mine, other in zip(ours, others, strict=False) if other]
    if not ratios:
        return []
    value = statistics.median(ratios)
    return [Goal(figure, f"≥ {least:.2f}", value, value >= least, (min(ratios), max(ratios)))]


def _at_most(figure: str, values: list[float], most: float) -> list[Goal]:
    if not values:
        return []
    value = statistics.median(values)
    return [Goal(figure, f"≤ {most:g}", value, value <= most, (min(values), max(values)) if len(values) > 1 else None)]


def markdown(report: Report) -> str:
    lines = [
        f"{report.model}, {report.images} photographs, {report.machine}; {report.began}, {report.seconds:.0f} s;",
        f"load of the machine before {report.load_before:.1f}, after {report.load_after:.1f}.",
        "",
        *table("figure | goal | median | least to most | met", [_goal_row(goal) for goal in report.goals]),
        *table(
            "images/s, closed loop | median | least to most | 12 Mpx | objects | wrong | failed",
            [_arm_row(name, arm) for name, arm in report.arms.items()],
        ),
        *(f"first failure of {TITLES[name]}: {arm.first_failure}\n" for name, arm in report.arms.items() if arm.failed),
        *table(
            "closed loop, clients | images/s | p50 ms | p95 | p99 | Triton alone: images/s | p50 ms",
            [_closed_row(report, clients) for clients in report.closed.get("ours", {})],
        ),
        *table(
            "open loop, % of capacity | images/s | p50 ms | p95 | p99 | requests",
            [f"{share} | {_latency(each)} | {each.count}" for share, each in report.open_loop.items()],
        ),
        *table(
            "mean ms of a step | " + " | ".join(_step_titles(report)),
            [f"{step} | " + " | ".join(_step_cells(report, step)) for step in _steps(report)],
        ),
        *table(
            "process | CPU ms per image | resident MB",
            [f"{role} | {value:.2f} | {report.memory_mb[role]:.0f}" for role, value in report.cpu_ms.items()],
        ),
        *table(
            "queued tasks | CPU ms of an upload | CPU ms of a task outside Triton",
            [f"{depth} | {each['upload']:.2f} | {each['task']:.2f}" for depth, each in report.queued_ms.items()],
        ),
        *table(AROUND, report.around_the_model),
    ]
    return "\n".join(lines)


def table(head: str, rows: list[str]) -> list[str]:
    if not rows:
        return []
    return [f"| {head} |", "|---" * (head.count("|") + 1) + "|", *(f"| {row} |" for row in rows), ""]


def _goal_row(goal: Goal) -> str:
    spread = f"{goal.spread[0]:.2f} to {goal.spread[1]:.2f}" if goal.spread else ""
    return f"{goal.figure} | {goal.goal} | {goal.value:.2f} | {spread} | {'yes' if goal.met else 'no'}"


def _arm_row(name: str, arm: ArmFigures) -> str:
    if arm.skipped:
        return f"{TITLES[name]} | skipped: {arm.skipped} | | | | |"
    large = f"{statistics.median(arm.large_rates):.1f}" if arm.large_rates else ""
    spread = f"{min(arm.rates):.1f} to {max(arm.rates):.1f}"
    counts = f"{arm.objects} | {arm.wrong} | {arm.failed}"
    return f"{TITLES[name]} | {statistics.median(arm.rates):.1f} | {spread} | {large} | {counts}"


def _closed_row(report: Report, clients: int) -> str:
    triton = report.closed["triton"][clients]
    return f"{clients} | {_latency(report.closed['ours'][clients])} | {triton.rate:.1f} | {triton.p50:.1f}"


def _latency(figures: Latency) -> str:
    return f"{figures.rate:.1f} | {figures.p50:.1f} | {figures.p95:.1f} | {figures.p99:.1f}"


def _step_titles(report: Report) -> list[str]:
    return [*(f"{clients} clients" for clients in sorted(report.steps_ms)), "12 Mpx"]


def _steps(report: Report) -> list[str]:
    return list(dict.fromkeys(step for steps in report.steps_ms.values() for step in steps))


def _step_cells(report: Report, step: str) -> list[str]:
    columns = [report.steps_ms[clients] for clients in sorted(report.steps_ms)]
    return [f"{column.get(step, 0.0):.2f}" for column in [*columns, report.large_steps_ms]]


def write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    (folder / "results.md").write_text(markdown(report))
