"""What a request costs: first answers, bytes, instances; and whether labels are there. Pure functions."""

from doctor.findings import EXPORT, Finding, Level, amount, plural, shortened, text
from doctor.model import CPU, GPU, Host, Model, Tensor, Trial

NOTED_START_MS, SLOW_START_MS = 100.0, 500.0
MUCH_OUT, SOME_OUT = 1_000_000, 200_000


def answers(model: Model, trial: Trial, host: Host) -> Finding | None:
    if not trial.refused:
        return None
    if model.image is None:
        return Finding(level="info", title="answers", what=f"not measured: {shortened(trial.refused)}")
    shapes = ", ".join(f"{each.name} {each.datatype} {text(model.trial_shape(each, 1))}" for each in model.inputs)
    return Finding(
        level="wrong",
        title="answers",
        what=f"no: {shortened(trial.refused)}",
        why="A plain request is refused; nothing below could be measured.",
        change=f"It was asked with {shapes}. If that is right, export the model again; Triton's log says more.",
    )


def cold_start(model: Model, trial: Trial, host: Host) -> Finding | None:
    if trial.refused:
        return None
    warmed = "warmed up" if model.warm_up else "no model_warmup"
    if trial.first_ms is None:
        untimed = f"not timed: it has answered before; {warmed}"
        if model.on_gpu and not model.warm_up:
            return cold(model, "note", untimed)
        return Finding(level="ok" if model.warm_up else "info", title="cold start", what=untimed)
    measured = f"the first request took {trial.first_ms:.0f} ms, later ones {trial.later_ms:.0f} ms; {warmed}"
    lost_ms = trial.first_ms - trial.later_ms
    if lost_ms > max(NOTED_START_MS, 2 * trial.later_ms):
        return cold(model, "wrong" if lost_ms > SLOW_START_MS else "note", measured)
    return Finding(level="ok", title="cold start", what=f"none: {measured}")


def cold(model: Model, level: Level, what: str) -> Finding:
    return Finding(
        level=level,
        title="cold start",
        what=what,
        why="After each start and each new version the first clients wait, or give up.",
        change="model_warmup in config.pbtxt: give it the shape and the batch sizes that requests have."
        if model.warm_up
        else f"model_warmup in config.pbtxt, for batch 1 and the largest; `{EXPORT} DEVICE=gpu` writes it.",
    )


def bytes_in(model: Model, trial: Trial, host: Host) -> Finding | None:
    image = model.image
    if image is None or image.dtype is None:
        return Finding(level="info", title="bytes in", what="no input looks like an image") if model.inputs else None
    size, shape = per_image(model, image, image.dtype.itemsize), model.picture(image)
    order = "height, width, channels" if shape[-1] in (1, 3) else "channels, height, width"
    what = f"{amount(size)} an image: {image.datatype}, {order}"
    if image.dtype.itemsize == 1:
        return Finding(level="ok", title="bytes in", what=what)
    return Finding(
        level="wrong",
        title="bytes in",
        what=what,
        why=f"Pixels are bytes: as UINT8 the same image is {amount(size // image.dtype.itemsize)}.",
        change=f"data_type: TYPE_UINT8 in config.pbtxt, normalised in the graph: `{EXPORT}` does both.",
    )


def bytes_out(model: Model, trial: Trial, host: Host) -> Finding | None:
    if trial.refused or model.image is None:
        return None
    size = trial.bytes_out // max(1, model.trial_shape(model.image, 1)[0] if model.batched(model.image) else 1)
    shapes = " and ".join(text(tuple(output.shape)) for output in model.outputs)
    what = f"{amount(size)} an image: {shapes}"
    if size <= SOME_OUT:
        return Finding(level="ok", title="bytes out", what=what)
    return Finding(
        level="wrong" if size > MUCH_OUT else "note",
        title="bytes out",
        what=what,
        why="Nearly all of it is background, which each client receives and sorts.",
        change=f"dims: [ 1000, 6 ], 24 kB: the graph of `{EXPORT}` keeps the best 1000 rows or so.",
    )


def device(model: Model, trial: Trial, host: Host) -> Finding | None:
    if model.on_gpu or not host.gpus or CPU not in model.instances:
        return None
    return Finding(
        level="wrong",
        title="device",
        what=f"the CPU, though Triton sees {plural(host.gpus, 'GPU')}",
        why="A GPU answers many times as many images.",
        change=f"kind: KIND_GPU in config.pbtxt's instance_group; `{EXPORT} DEVICE=gpu` writes it and the batching.",
    )


def instances(model: Model, trial: Trial, host: Host) -> Finding | None:
    if model.on_gpu:
        return Finding(level="ok", title="instances", what=f"{plural(model.instances[GPU], 'instance')} on the GPU")
    count = model.instances.get(CPU, 0)
    if not count:
        return None
    if not model.threads:
        return unsaid_threads(model, count)
    busy = count * model.threads
    what = f"{plural(count, 'instance')} x {plural(model.threads, 'thread')}"
    if host.cores is None:
        there = f"{what}; Triton runs on another machine: it should have {plural(busy, 'core')} or more"
        return Finding(level="info", title="instances", what=there)
    what = f"{what} on {plural(host.cores, 'core')}"
    fastest = f'count: {host.cores} (`INSTANCES={host.cores}`), intra_op_thread_count "1": the fastest measured.'
    if busy > host.cores:
        return Finding(
            level="wrong" if model.threads > host.cores or busy >= 2 * host.cores else "note",
            title="instances",
            what=f"{what}: too many",
            why="Threads take the cores from each other, and from workers and gateway.",
            change=fastest,
        )
    if 2 * busy <= host.cores:
        why = "Half of the cores or more never run the model."
        return Finding(level="note", title="instances", what=f"{what}: few", why=why, change=fastest)
    if count == 1 and model.threads > 1:
        why = "Two instances of one thread answered a fifth more images than one of two."
        return Finding(level="note", title="instances", what=what, why=why, change=fastest)
    return Finding(level="ok", title="instances", what=what)


def unsaid_threads(model: Model, count: int) -> Finding:
    if not model.engine.startswith("onnxruntime"):
        return Finding(level="info", title="instances", what=f"{plural(count, 'instance')} on the CPU ({model.engine})")
    return Finding(
        level="note",
        title="instances",
        what=f"{plural(count, 'instance')} on the CPU, threads not said",
        why="ONNX Runtime then takes a thread for every core in every instance.",
        change='parameters { key: "intra_op_thread_count" value: { string_value: "1" } } in config.pbtxt.',
    )


def labels(model: Model, trial: Trial, host: Host) -> Finding | None:
    file = next((output.label_file for output in model.outputs if output.label_file), "")
    if file and trial.labels != 0:
        shown = file if trial.labels is None else f"{trial.labels} in {file}"
        return Finding(level="ok", title="labels", what=shown)
    if model.image is None:
        return None
    return Finding(
        level="wrong" if model.is_ours or file else "note",
        title="labels",
        what=f"{file} is empty" if file else "none: no output has a label_filename",
        why="The gateway refuses a model without class names.",
        change='label_filename: "labels.txt" on the output in config.pbtxt; the file has one name a line.',
    )


def per_image(model: Model, tensor: Tensor, itemsize: int) -> int:
    """Bytes of one picture, the free sides being the model's size."""
    size = itemsize
    for side in model.picture(tensor):
        size *= model.side if side < 0 else side
    return size
