"""The reward trainer's process: everything that needs torch on the reward side. Started by its worker."""

from services.reward_trainer.stages import train_reward
from services.torch_setup import hello, prepare
from services.tracking import tracked
from shared.trainer_process import serve

if __name__ == "__main__":
    serve(tracked({"training_reward": train_reward}), hello(), prepare)
