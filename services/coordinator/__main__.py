"""`python -m services.coordinator`."""

from services.coordinator.loop import main

if __name__ == "__main__":
    main()
