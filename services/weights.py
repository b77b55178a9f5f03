"""Weights as safetensors: a model's tensors, and in the header what it takes to build the model again.

Nothing is unpickled: a file is numbers and a line of JSON, so weights from anywhere can be looked at safely.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from torch import nn

from services.agent_trainer import ppo
from services.reward_trainer import reward_model

Model = TypeVar("Model", bound=nn.Module)
LATER = {"spread", "familiar"}  # what older files do not have: it is as before any training


def save_agent(agent: ppo.Agent) -> bytes:
    """Return the agent as safetensors, its sizes in the header."""
    return _save(agent, "agent", agent.sizes)


def load_agent(data: bytes) -> ppo.Agent:
    """Return the agent that `save_agent` wrote; a ValueError if `data` is something else."""
    return _load(data, "agent", lambda sizes: ppo.Agent(**_shape(sizes)))


def save_reward_model(model: reward_model.RewardModel) -> bytes:
    """Return the reward model as safetensors, its settings in the header."""
    return _save(model, "reward_model", {"args": vars(model.args), **model.sizes})


def load_reward_model(data: bytes) -> reward_model.RewardModel:
    """Return the reward model that `save_reward_model` wrote; a ValueError if `data` is something else."""

    def build(about: dict[str, Any]) -> reward_model.RewardModel:
        return reward_model.RewardModel(_shape(about)["shape"], reward_model.Args(**about["args"]))

    return _load(data, "reward_model", build)


def _shape(about: dict[str, Any]) -> dict[str, Any]:
    """Read a header of the time when every observation was a vector."""
    rest = {key: value for key, value in about.items() if key != "observation_size"}
    return rest if rest == about else {**rest, "shape": [about["observation_size"]]}


def _save(model: nn.Module, kind: str, about: dict[str, Any]) -> bytes:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(tensors, {kind: json.dumps(about)})


def _load(data: bytes, kind: str, build: Callable[[dict[str, Any]], Model]) -> Model:
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        model = build(json.loads(header["__metadata__"][kind]))
        fresh = {name: tensor for name, tensor in model.state_dict().items() if name in LATER}
        model.load_state_dict(fresh | tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"this file holds no {kind} that Lockstep wrote: {error}") from error
    return model
