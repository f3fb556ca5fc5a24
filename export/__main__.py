"""`make export-model`: a checkpoint becomes the next version of a served model."""

import os
import sys
import time

from export import switch
from export.errors import ExportError, NoWeightsError
from export.options import parse

NO_WEIGHTS = 3  # exit status that tells `python -m local` to serve the demo model


def main() -> int:
    try:
        options = parse(sys.argv[1:])
        if options.list:
            print("\n".join(switch.listing(options.repository)))
        elif options.switches:
            switch.run(options, _report)
        else:
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine PyTorch's waiting threads spin
            from export import publish  # torch takes seconds to import: a wrong option is reported before

            publish.export(options, _report)
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return NO_WEIGHTS if isinstance(error, NoWeightsError) else 1
    except KeyboardInterrupt:
        print("export: interrupted; the repository is as it was", file=sys.stderr)
        return 130
    return 0


def _report(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
