"""Checkpoints of long training: a file from which the next attempt goes on, if this one is killed.

    for update in Checkpoints(job, store, tell).resumed(range(updates), …)    # begins where the file was made

It holds a model's tensors, its optimizer's and how far they have come, as safetensors: nothing in a store is
ever unpickled. Whoever goes on from it computes the same, bit for bit, as who was never interrupted.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from shared.jobs import Artifact, Store, TrainAgentJob, TrainRewardJob, put_artifact
from shared.storage import DamagedArtifact, MissingArtifact, StoreError

Tell = Callable[[Artifact], None]


@dataclass
class Checkpoints:
    """Those of one attempt: the one it may begin with, and those that it stores and tells of."""

    job: TrainRewardJob | TrainAgentJob
    store: Store
    tell: Tell | None = None  # without it none is stored

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, draw: torch.Generator | None = None
    ) -> int:
        """Set all as they were and return the number of steps done; 0 if there is no checkpoint to use.

        One that is missing or damaged costs time alone: training begins anew, which is said.
        """
        if (found := self.job.checkpoint) is None:
            return 0
        try:
            done = unpack(self.store.get(found.key, found.sha256), model, optimizer, draw)
        except (MissingArtifact, DamagedArtifact, ValueError) as error:
            print(f"training begins anew, for its checkpoint cannot be used: {error}")
            return 0
        print(f"training goes on from {found.key}")
        return done

    def save(
        self, done: int, model: nn.Module, optimizer: torch.optim.Optimizer,
        draw: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        """Store how all stand after `done` steps; if the store has no room, say so and train on."""
        if self.tell is None:
            return
        key = f"{self.job.prefix}checkpoint-{done:06d}.safetensors"
        try:
            artifact = put_artifact(self.store, "checkpoint", key, pack(done, model, optimizer, draw))
        except StoreError as error:
            print(f"no checkpoint was stored: {error}")
        else:
            self.tell(artifact)


def pack(
    done: int, model: nn.Module, optimizer: torch.optim.Optimizer, draw: torch.Generator | None = None
) -> bytes:
    """Return a checkpoint."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in state.items()}
    if draw is not None:
        tensors["draw"] = draw.get_state()
    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, {"checkpoint": json.dumps({"done": done})})


def unpack(
    data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer, draw: torch.Generator | None = None
) -> int:
    """Set all as `pack` found them; return how many steps are done. ValueError, and nothing set, if it can't.

    `model` must be the one that `optimizer` was made for.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        done = int(json.loads(header["__metadata__"]["checkpoint"])["done"])
        for key in [key for key in tensors if key.startswith("optimizer.")]:
            _, number, name = key.split(".")
            tensor, like = tensors.pop(key), parameters[int(number)]
            if tensor.shape == like.shape:  # laid out in memory as the parameter is
                tensor = torch.empty_like(like, requires_grad=False).copy_(tensor)
            states.setdefault(int(number), {})[name] = tensor
        drawn = tensors.pop("draw") if draw is not None else None
    except (safetensors.SafetensorError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"this file holds no checkpoint of this training: {error}") from error
    weights = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
    shapes, wanted = ({k: x.shape for k, x in of.items()} for of in (weights, model.state_dict()))
    if shapes != wanted:
        raise ValueError("this file holds a checkpoint of another model")
    model.load_state_dict(weights)
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    if draw is not None and drawn is not None:
        draw.set_state(drawn)
    return done
