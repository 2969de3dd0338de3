"""`python -m spacetime` is the `spacetime` command."""

from spacetime.cli import main

if __name__ == "__main__":
    main()
