"""The reward trainer's worker: `python -m services.reward_trainer.worker`. It supervises; torch is its child's."""

from services.worker_loop import main

if __name__ == "__main__":
    main("reward_trainer", "services.reward_trainer.trainer")
