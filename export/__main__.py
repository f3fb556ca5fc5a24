"""`make export-model`: a checkpoint becomes the next version of a served model."""

import os
import sys
import time

from export import switch
from export.errors import ExportError, NoWeightsError, one_line, print_any_name
from export.options import parse

NO_WEIGHTS = 3  # exit status that tells `python -m local` to serve the demo model


def main() -> int:
    try:
        options = parse(sys.argv[1:])
        if options.list:
            print("\n".join(switch.listing(options.repository, options.name)))
        elif options.switches:
            switch.run(options, _report)
        else:
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine PyTorch's waiting threads spin
            from export import publish  # torch takes seconds to import: a wrong option is reported before

            publish.export(options, _report)
    except UnicodeDecodeError as error:
        print(f"export: a file of the model is no UTF-8 text ({error}); correct it", file=sys.stderr)
        return 1
    except ExportError as error:
        print(f"export: {one_line(str(error))}", file=sys.stderr)
        return NO_WEIGHTS if isinstance(error, NoWeightsError) else 1
    except KeyboardInterrupt:
        print("export: interrupted; the repository is as it was", file=sys.stderr)
        return 130
    return 0


def _report(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {one_line(line)}", flush=True)


if __name__ == "__main__":
    print_any_name()
    sys.exit(main())
