"""The agent trainer's process: everything that needs torch on the agent's side. Started by its worker."""

from services.agent_trainer.stages import collect, train_agent
from services.torch_setup import hello, prepare
from services.tracking import tracked
from shared.trainer_process import serve

if __name__ == "__main__":
    serve(tracked({"collecting": collect, "training_agent": train_agent}), hello(), prepare)
