"""Both trainers' real stages in one process, so that a test starts torch once."""

from services.agent_trainer.stages import collect, train_agent
from services.reward_trainer.stages import train_reward
from services.torch_setup import hello, prepare
from shared.trainer_process import serve

if __name__ == "__main__":
    stages = {"collecting": collect, "training_reward": train_reward, "training_agent": train_agent}
    serve(stages, hello(), prepare)
