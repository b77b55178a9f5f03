"""A real worker over the odd trainer, so that a test of the worker's process needs no torch."""

from services.worker_loop import main
from shared.settings import load_settings
from shared.supervision import TrainerProcess

if __name__ == "__main__":
    settings = load_settings()
    main("agent_trainer", settings, TrainerProcess("tests.odd_trainer", settings))
