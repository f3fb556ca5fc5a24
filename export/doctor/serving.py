"""What a request costs: first answers, bytes, instances; and whether labels are there. Pure functions."""

from export.doctor.findings import EXPORT, Finding, amount, plural, text
from export.doctor.model import CPU, GPU, Host, Model, Tensor, Trial

SLOW_START_FACTOR, SLOW_START_MS = 3.0, 100.0
MUCH_OUT, SOME_OUT = 1_000_000, 200_000


def answers(model: Model, trial: Trial, host: Host) -> Finding | None:
    if not trial.refused:
        return None
    shapes = ", ".join(f"{each.name} {each.datatype} {text(model.trial_shape(each, 1))}" for each in model.inputs)
    return Finding(
        level="info" if any(tensor.dtype is None for tensor in model.inputs) else "wrong",
        title="answers",
        what=f"no: {trial.refused}",
        why="Nothing could be measured; below is only what the configuration says.",
        change=f"It was asked with {shapes}. If that is no right input, ignore this; otherwise mend the model.",
    )


def cold_start(model: Model, trial: Trial, host: Host) -> Finding | None:
    if trial.refused:
        return None
    title, warmed = "cold start", "warmed up" if model.warm_up else "no model_warmup"
    if trial.first_ms is None:
        served = f"not timed: it has answered before; {warmed}"
        if model.warm_up or not model.on_gpu:
            return Finding(level="ok" if model.warm_up else "info", title=title, what=served)
    elif trial.first_ms < max(SLOW_START_FACTOR * trial.later_ms, trial.later_ms + SLOW_START_MS):
        said = f"none: the first request took {trial.first_ms:.0f} ms, later ones {trial.later_ms:.0f} ms; {warmed}"
        return Finding(level="ok", title=title, what=said)
    else:
        served = f"the first request took {trial.first_ms:.0f} ms, later ones {trial.later_ms:.0f} ms; {warmed}"
    return Finding(
        level="note" if trial.first_ms is None else "wrong",
        title=title,
        what=served,
        why="After each start or new version, the first clients wait, or give up.",
        change="The warm-up has another shape or batch size than requests have: mend model_warmup in config.pbtxt."
        if model.warm_up
        else f"A model_warmup block in config.pbtxt, for batch 1 and the largest; `{EXPORT} DEVICE=gpu` writes it.",
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
        why=f"Pixels are bytes: as UINT8 the same image is {amount(size // image.dtype.itemsize)}. float32 in and raw "
        "rows out halved the images/s that were measured.",
        change=f"`{EXPORT}` puts the normalisation into the graph: data_type: TYPE_UINT8 in config.pbtxt.",
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
        why="Nearly all of these rows are background; each client receives and sorts them.",
        change=f"`{EXPORT}` lets the graph keep the best 1000 rows, 24 kB: dims: [ 1000, 6 ] in config.pbtxt.",
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
    fastest = f'count: {host.cores} in instance_group (`INSTANCES={host.cores}`), intra_op_thread_count "1"'
    if busy > host.cores:
        return Finding(
            level="wrong" if model.threads > host.cores or busy >= 2 * host.cores else "note",
            title="instances",
            what=f"{what}: too many",
            why="Threads take the cores from each other, and from workers and gateway; each image takes longer.",
            change=f"In config.pbtxt {fastest}: the fastest measured.",
        )
    if (count == 1 and model.threads > 1) or 2 * busy <= host.cores:
        return Finding(
            level="note",
            title="instances",
            what=f"{what}: fewer images than the machine could answer",
            why="One instance a core with one thread each answered a fifth more images than one with all the threads.",
            change=f"In config.pbtxt {fastest}. A single image at a time is a little slower so.",
        )
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
        told = file if trial.labels is None else f"{trial.labels} in {file}"
        return Finding(level="ok", title="labels", what=told)
    if model.image is None:
        return None
    ours = {tensor.name for tensor in (*model.inputs, *model.outputs)} == {"images", "detections"}
    return Finding(
        level="wrong" if ours or file else "note",
        title="labels",
        what=f"{file} is empty" if file else "none: no output has a label_filename",
        why="Clients must bring the class names themselves; the gateway refuses such a model.",
        change='label_filename: "labels.txt" on the output in config.pbtxt, one name a line beside it.',
    )


def per_image(model: Model, tensor: Tensor, itemsize: int) -> int:
    """Bytes of one picture, the free sides being the model's size."""
    size = itemsize
    for side in model.picture(tensor):
        size *= model.side if side < 0 else side
    return size
