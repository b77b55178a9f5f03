"""The reward trainer's worker (`python -m services.reward_trainer.worker`): only its child knows torch."""

from services.worker_loop import main

if __name__ == "__main__":
    main("reward_trainer", "services.reward_trainer.trainer")
