"""`python -m services`: the `lockstep` command where it is not installed."""

from services.cli import main

if __name__ == "__main__":
    main()
