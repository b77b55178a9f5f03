"""The agent trainer's worker (`python -m services.agent_trainer.worker`): only its child knows torch."""

from shared.settings import check_tracker, load_settings
from shared.supervision import TrainerProcess

if __name__ == "__main__":
    settings = load_settings()
    check_tracker(settings)
    # First of all: torch takes seconds to load, and does so while this process loads the rest.
    trainer = TrainerProcess("services.agent_trainer.trainer", settings)
    from services.worker_loop import main

    main("agent_trainer", settings, trainer)
