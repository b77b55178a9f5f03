"""A reward model trained by imitation: `python with_imitation.py CLIPS.npz MEMBERS EPOCHS`.

Networks and trainer are those of its documentation on preference comparisons: two hidden layers of 32,
running normalisation, batches of 32, the cross-entropy loss.
"""

import sys

import gymnasium as gym
import numpy as np
from imitation.algorithms import preference_comparisons as preferences
from imitation.data.types import TrajectoryWithRew
from imitation.rewards.reward_nets import BasicRewardNet, RewardEnsemble
from imitation.util import logger
from imitation.util.networks import RunningNorm
from turn import Clock, serve


def main(path: str, members: int, epochs: int) -> None:
    """Train on the clips at `path` whenever asked, each time `epochs` epochs."""
    data = np.load(path)
    observations, actions, ranks = data["observations"], data["actions"], data["ranks"]  # [B, 2, T + 1, D]
    dataset = preferences.PreferenceDataset()
    pairs = [
        tuple(TrajectoryWithRew(o, a, None, False, np.zeros(len(a))) for o, a in zip(*row, strict=True))
        for row in zip(observations, actions, strict=True)
    ]
    dataset.push(pairs, (ranks[:, 0] < ranks[:, 1]).astype(np.float32))
    spaces = (gym.spaces.Box(-np.inf, np.inf, observations.shape[3:], np.float32), gym.spaces.Discrete(2))
    quiet = logger.configure("log", [])
    options = {
        "loss": preferences.CrossEntropyRewardLoss(),
        "rng": np.random.default_rng(1),
        "epochs": epochs,
    }
    if members == 1:
        model = preferences.PreferenceModel(BasicRewardNet(*spaces, normalize_input_layer=RunningNorm))
        trainer = preferences.BasicRewardTrainer(model, custom_logger=quiet, **options)
    else:
        nets = [BasicRewardNet(*spaces, normalize_input_layer=RunningNorm) for _ in range(members)]
        model = preferences.PreferenceModel(RewardEnsemble(*spaces, nets))
        trainer = preferences.EnsembleTrainer(model, custom_logger=quiet, **options)

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        trainer.train(dataset)
        return {"units": len(dataset) * epochs}

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
