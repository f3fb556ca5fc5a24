"""All checks of a model. Each looks at the model and its trial and says what it found. Pure functions."""

from collections.abc import Callable

from doctor import batching, serving
from doctor.findings import Finding
from doctor.model import Host, Model, Trial

# In the order people ask.
CHECKS: tuple[Callable[[Model, Trial, Host], Finding | None], ...] = (
    serving.answers,
    batching.batch_dimension,
    batching.batching,
    batching.batches_form,
    serving.cold_start,
    serving.bytes_in,
    serving.bytes_out,
    serving.device,
    serving.instances,
    serving.labels,
)


def examine(model: Model, trial: Trial, host: Host) -> list[Finding]:
    """Everything there is to say of a model."""
    return [finding for check in CHECKS if (finding := check(model, trial, host))]
