"""`python -m yolo_gateway`, the same as `yolo-gateway`."""

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        try:
            import click  # noqa: F401
        except ModuleNotFoundError:
            print(
                "yolo-gateway: the command line needs click; install it with: pip install 'yolo-gateway[cli]'",
                file=sys.stderr,
            )
            sys.exit(2)
        from yolo_gateway.cli.app import main as run
    except KeyboardInterrupt:  # Ctrl-C before it has begun
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
