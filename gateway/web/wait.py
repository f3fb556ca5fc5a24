"""How long a client wants to wait."""

from starlette.requests import Request

from gateway.web.parameters import LONGEST_WAIT_SECONDS


def wait_seconds(request: Request, wanted: float | None) -> tuple[float, bool]:
    """How long to wait, and whether a Prefer header (RFC 7240) said so: a hint, of which at most 60 s are granted."""
    if wanted is not None:
        return wanted, False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip('" ')
        if name.strip().lower() == "wait" and seconds.isdecimal():
            return min(float(seconds), LONGEST_WAIT_SECONDS), True
    return 0.0, False
