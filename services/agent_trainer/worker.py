"""The agent trainer's worker (`python -m services.agent_trainer.worker`): only its child knows torch."""

from services.worker_loop import main

if __name__ == "__main__":
    main("agent_trainer", "services.agent_trainer.trainer")
