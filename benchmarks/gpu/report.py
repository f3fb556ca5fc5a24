"""What was found, next to the goals, as a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

ALONE_TO_TRTEXEC, MAP_LOSS = 0.85, 0.002
H100_RATE, SERVICE_RATE, SERVICE_CORES = 4000.0, 1500.0, 16


class Host(msgspec.Struct):
    """The machine and what runs on it."""

    gpus: list[str]
    driver: str
    triton: str
    tensorrt: str
    cores: int
    commit: str
    load: float


class Load(msgspec.Struct):
    """One load on Triton or the whole service: images a second that were answered, and what Triton and the GPU did.

    `batches` counts executions by batch size; GPU use in percent and `watts` are means of one reading a second.
    """

    rate: float
    failed: int = 0
    batches: dict[str, int] = {}
    gpu_percent: float | None = None
    watts: float | None = None


class Row(msgspec.Struct):
    """One way to serve the model. None: not measured; `problem` says why nothing, or nothing more, was."""

    name: str
    precision: str
    export_seconds: float | None = None
    first_start_seconds: float | None = None
    second_start_seconds: float | None = None
    verified: str = ""
    doctor: str = ""
    trtexec_rate: float | None = None
    alone: Load | None = None
    lone_ms: float | None = None
    map50_95: float | None = None
    problem: str = ""


class Report(msgspec.Struct):
    """Everything that `make gpu-check` found."""

    host: Host
    model: str
    data: str
    rows: list[Row] = []
    service: Load | None = None
    service_of: str = ""
    seconds: float = 0.0


class Goal(NamedTuple):
    """`reached` is None where the figure could not be had on this machine."""

    what: str
    wanted: str
    found: str
    reached: bool | None


def goals(report: Report) -> Iterator[Goal]:
    """The goals, each with what was found."""
    for row in report.rows:
        if row.alone and row.trtexec_rate:
            ratio = row.alone.rate / row.trtexec_rate
            yield Goal(
                f"Triton alone ÷ trtexec, {row.name} {row.precision}",
                f"≥ {ALONE_TO_TRTEXEC}",
                f"{ratio:.2f}",
                ratio >= ALONE_TO_TRTEXEC,
            )
    rates = {f"{row.name} {row.precision}": row.alone.rate for row in report.rows if row.alone}
    best = max(rates, key=lambda name: rates[name], default="")
    h100 = any("H100" in name for name in report.host.gpus) and report.model == "yolov5n"
    yield Goal(
        "images/s of yolov5n on an H100",
        f"≥ {H100_RATE:.0f}",
        f"{rates[best]:.0f} ({best})" if best else "not measured",
        rates[best] >= H100_RATE if best and h100 else None,
    )
    service, cores = report.service, report.host.cores
    yield Goal(
        f"images/s of the whole service with {SERVICE_CORES} cores",
        f"≥ {SERVICE_RATE:.0f}",
        f"{service.rate:.0f} ({cores} cores)" if service else "not measured",
        service.rate >= SERVICE_RATE if service and cores >= SERVICE_CORES else None,
    )
    yield from _lost(report.rows)


def _lost(rows: list[Row]) -> Iterator[Goal]:
    full = {row.name: row.map50_95 for row in rows if row.precision == "fp32"}
    for row in rows:
        reference = full.get(row.name)
        if row.precision == "fp16" and row.map50_95 is not None and reference is not None:
            loss = reference - row.map50_95
            yield Goal(f"mAP50-95 that fp16 loses, {row.name}", f"≤ {MAP_LOSS}", f"{loss:.4f}", loss <= MAP_LOSS)


def failed(report: Report) -> bool:
    """Whether something did not work, or a goal was missed."""
    return any(row.problem for row in report.rows) or any(goal.reached is False for goal in goals(report))


def markdown(report: Report) -> str:
    """The report as a page."""
    host = report.host
    lines = [
        f"# {report.model} on {', '.join(host.gpus)}",
        "",
        f"Driver {host.driver}, Triton {host.triton}, TensorRT {host.tensorrt}, {host.cores} CPU cores, commit "
        f"{host.commit}. Load average at the start {host.load:.1f}; took {report.seconds / 60:.0f} minutes.",
        "",
        "| goal | wanted | found | |",
        "|---|---|---|---|",
    ]
    verdict = {True: "reached", False: "**missed**", None: "not to be judged here"}
    lines += [f"| {goal.what} | {goal.wanted} | {goal.found} | {verdict[goal.reached]} |" for goal in goals(report)]
    lines += [
        "",
        "| | export s | first start s | second start s | trtexec images/s | Triton alone images/s | GPU % | W | "
        f"one request ms | mAP50-95 ({report.data}) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report.rows:
        load = row.alone or Load(0)
        cells = [
            _number(row.export_seconds),
            _number(row.first_start_seconds),
            _number(row.second_start_seconds),
            _number(row.trtexec_rate),
            _number(row.alone.rate if row.alone else None),
            _number(load.gpu_percent),
            _number(load.watts),
            _number(row.lone_ms, 2),
            _number(row.map50_95, 4),
        ]
        lines.append(f"| {row.name} {row.precision} | {' | '.join(cells)} |")
    lines.append("")
    for row in report.rows:
        lines += [f"**{row.name} {row.precision}**", ""]
        lines += [f"- {text}" for text in _told(row)]
        lines.append("")
    if report.service:
        lines += [f"**Whole service**, {report.service_of}: {_load(report.service)}", ""]
    return "\n".join(lines)


def _told(row: Row) -> Iterator[str]:
    if row.problem:
        yield f"**It did not work**: {row.problem}"
    if row.verified:
        yield f"as PyTorch: {row.verified}"
    if row.doctor:
        yield f"doctor: {row.doctor}"
    if row.alone:
        yield f"Triton alone: {_load(row.alone)}"


def _load(load: Load) -> str:
    images = sum(int(size) * count for size, count in load.batches.items())
    executions = sum(load.batches.values())
    sizes = ", ".join(f"{size}: {count}" for size, count in sorted(load.batches.items(), key=lambda pair: int(pair[0])))
    mean = f"; {images / executions:.1f} images an execution (size: executions; {sizes})" if executions else ""
    return f"{load.rate:.0f} images/s{mean}{f'; {load.failed} failed' if load.failed else ''}"


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
