"""`python -m services.agent_trainer.check my_module:MyEnv-v0`: can this environment be played, and filmed?"""

import sys

from services.agent_trainer import envs


def main(env_id: str) -> None:
    """Say what an environment looks like to an agent; UnknownEnvironment if it can't be played."""
    made = envs.make_envs(env_id, 1)
    seen, played = made.single_observation_space, made.single_action_space
    made.close()
    print(f"{env_id} can be played: it observes {seen} and acts in {played}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except envs.UnknownEnvironment as error:
        raise SystemExit(str(error)) from None
