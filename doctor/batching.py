"""Batches: can they form, may they form, do they form? Pure functions."""

from doctor.findings import EXPORT, Finding, shortened, text
from doctor.model import Host, Load, Model, Trial

LONG_DELAY_MS = 100.0
SHORT_DELAY_US = 100
NEVER_TOGETHER = 1.2


def batch_dimension(model: Model, trial: Trial, host: Host) -> Finding | None:
    title, shape = "batch dimension", (model.image or model.inputs[0]).shape if model.inputs else ()
    why = "Only a graph that takes any number of images can run requests together."
    export = f"`{EXPORT} WEIGHTS=...` frees it (in yolov5's own export.py: --dynamic)"
    if trial.pair_refused:
        return Finding(
            level="wrong",
            title=title,
            what=f"fixed: {text(shape)} admits two images, yet the model refuses them",
            why=f"{why} It says: {shortened(trial.pair_refused)}",
            change=f"{export}; or max_batch_size: 1 in config.pbtxt.",
        )
    if trial.pair_tried:
        return Finding(level="ok", title=title, what="free: two images in one request were answered")
    if model.max_batch_size == 0 and model.image is None:
        return None
    if model.max_batch_size == 0:
        if len(shape) == 4 and shape[0] < 0:
            return Finding(level="info", title=title, what=f"free in {text(shape)}, but the model did not answer")
        held = f"fixed at {shape[0]}" if len(shape) == 4 else "none"
        if model.is_ours:  # the exporter frees what can be freed
            return Finding(
                level="note",
                title=title,
                what=f"{held}: the file that it was exported from takes one image at a time",
                why=why,
                change=f"`{EXPORT}` from the .pt, or from an .onnx that was written with --dynamic.",
            )
        return Finding(
            level="wrong",
            title=title,
            what=f"{held}: the input is {text(shape)}",
            why=why,
            change=f"{export}; then dims without the batch in config.pbtxt.",
        )
    said = "the configuration admits one image" if model.max_batch_size == 1 else "the model did not answer"
    return Finding(level="info", title=title, what=f"not tried: {said}")


def batching(model: Model, trial: Trial, host: Host) -> Finding | None:
    title, most = "batching", model.max_batch_size
    if model.scheduler == "ensemble_scheduling":
        return Finding(level="info", title=title, what="an ensemble: its steps batch, look at those")
    if model.scheduler:
        return Finding(level="info", title=title, what=f"left to {model.scheduler}")
    if most == 0 and model.is_ours:
        return None
    if most == 0:
        return Finding(
            level="wrong" if model.image else "note",
            title=title,
            what="off: max_batch_size: 0",
            why="Triton never runs requests together.",
            change=f"max_batch_size: 4 in config.pbtxt; `{EXPORT} BATCH=4` writes it.",
        )
    if most == 1:
        return Finding(
            level="note",
            title=title,
            what="off: max_batch_size: 1",
            why="Every image is run alone. On a CPU that costs nothing; on a GPU most of its speed.",
            change=f"max_batch_size in config.pbtxt, or `{EXPORT} BATCH=16`.",
        )
    if model.batching is None:
        return Finding(
            level="wrong",
            title=title,
            what=f"off: max_batch_size: {most}, but no dynamic_batching",
            why="Images that come in separate requests, as the gateway sends them, never run together.",
            change="dynamic_batching { } in config.pbtxt; or max_batch_size: 1, if one by one is wanted.",
        )
    return delay(model, trial) or preferred(model) or mixed_shapes(model) or batching_on(model)


def delay(model: Model, trial: Trial) -> Finding | None:
    assert model.batching is not None
    wait_ms = model.batching.delay_us / 1000
    alone_ms = trial.later_ms - wait_ms
    if wait_ms < LONG_DELAY_MS and (not trial.later_ms or wait_ms <= max(alone_ms, 5)):
        return None
    compared = f", and an image takes {alone_ms:.1f} ms" if 0 < alone_ms else ""
    return Finding(
        level="wrong" if wait_ms >= LONG_DELAY_MS else "note",
        title="batching",
        what=f"on, but a lone request waits {wait_ms:.0f} ms for others{compared}",
        why="Whoever sends one image at a time waits that long for nothing.",
        change="max_queue_delay_microseconds in config.pbtxt (`DELAY_US=`): 1000, on a CPU 0.",
    )


def preferred(model: Model) -> Finding | None:
    assert model.batching is not None
    sizes = model.batching.preferred
    takes_what_waits = sizes == (1,) and 0 < model.batching.delay_us < SHORT_DELAY_US
    if not sizes or max(sizes) == model.max_batch_size or takes_what_waits:
        return None
    return Finding(
        level="note",
        title="batching",
        what=f"on, up to {model.max_batch_size}, but preferred_batch_size is {text(sizes)}",
        why="Triton stops at a preferred size, so that the largest batch is not formed when it could be.",
        change="Remove preferred_batch_size from config.pbtxt; without it Triton takes what waits.",
    )


def mixed_shapes(model: Model) -> Finding | None:
    if not (model.on_gpu and model.image and min(model.picture(model.image)) < 0):
        return None
    return Finding(
        level="note",
        title="batching",
        what=f"on, up to {model.max_batch_size}, but only images of one shape go together",
        why="The sides of the input are free, and Triton batches equal shapes only: photographs differ.",
        change=f"A square input: `{EXPORT} DEVICE=gpu`, which writes fixed dims.",
    )


def batching_on(model: Model) -> Finding:
    assert model.batching is not None
    wait_ms = model.batching.delay_us / 1000
    waits = (
        f"a lone request waits {wait_ms:g} ms"
        if model.batching.delay_us >= SHORT_DELAY_US
        else "no request waits for others"
    )
    return Finding(level="ok", title="batching", what=f"on: up to {model.max_batch_size} images, {waits}")


def batches_form(model: Model, trial: Trial, host: Host) -> Finding | None:
    load = trial.load
    if load is None or model.batching is None:
        return None
    title, counts = "batches form", load.counts
    if load.failed or not counts.executions:
        return Finding(
            level="wrong",
            title=title,
            what=f"{load.failed} of {load.sent} requests failed, with {load.at_once} on their way at once",
            why="So will the requests of clients under load.",
            change="Read Triton's log; a full queue (max_queue_size) or a timeout in config.pbtxt refuses requests.",
        )
    measured = f"{counts.together:.1f} images an execution ({counts.images} in {counts.executions})"
    timed = f"{load.sent / load.seconds:.0f} images/s, {counts.mean_queue_ms:.0f} ms in the queue"
    if counts.together >= NEVER_TOGETHER:
        return Finding(level="ok", title=title, what=f"{measured}; {timed}{others(load)}")
    if counts.mean_queue_ms < trial.later_ms:
        said = f"not needed: {measured}; requests hardly waited ({timed}{others(load)})"
        return Finding(level="info", title=title, what=said)
    return Finding(
        level="wrong",
        title=title,
        what=f"never: {measured}; {timed}{others(load)}",
        why="Requests waited and were run one by one all the same.",
        change="dynamic_batching in config.pbtxt: look at preferred_batch_size, priorities and the rate limiter.",
    )


def others(load: Load) -> str:
    more = load.counts.requests - load.sent
    return f"; {more} requests of others among them" if more > 0 else ""
