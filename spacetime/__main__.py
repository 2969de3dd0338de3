"""`python -m spacetime` is the `spacetime` command."""

import sys

from spacetime.interruption import INTERRUPTED, end_now


def main() -> None:
    """The command; Ctrl-C ends it in a line also while its parts are imported."""
    try:
        from spacetime.cli.root import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        print("\nspacetime: interrupted", file=sys.stderr)
        end_now(INTERRUPTED)


if __name__ == "__main__":
    main()
