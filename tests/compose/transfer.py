"""An experiment out of the full size as an archive, and its labels in again as the beginning of another."""

import io
import json
import zipfile
from typing import Any

import httpx

from tests.compose.stack import running, say

# Too few labels to learn from by themselves: what the second experiment learns from has come in.
OUT_OF = (
    "--set",
    "rounds=1",
    "--set",
    "labels.comparisons_first_round=6",
    "--set",
    "agent.final_steps=10000",
)
CHANGES = ("labels.comparisons_first_round=4", "agent.final_steps=10000")


def transfer() -> None:
    """Export an experiment by the admin's API and by command, and train a second one from its labels.

    This is what the labeler's volume `spool` and pyarrow in its image are for: it can write nowhere else.
    """
    with running("lockstep-check") as stack:
        stack.lockstep("create", "configs/cartpole.toml", *OUT_OF)
        stack.lockstep("teach", "cartpole")
        first = stack.report("cartpole")
        given = first["rounds"][0]["labels"]["given"]
        page = {"Origin": stack.url}  # what a browser says of itself, without which a cookie changes nothing
        with httpx.Client(base_url=stack.url, headers=page, timeout=60, trust_env=False) as admin:
            come = admin.post("/api/admin/session", json={"token": stack.admin_token})
            assert come.is_success, come.text
            sent = admin.get("/api/admin/experiments/cartpole/export", params={"licence": "cc-by-4.0"})
            assert sent.is_success, sent.text
            asked = [("name", "second"), *(("set", change) for change in CHANGES)]
            headers = {"Content-Type": "application/zip"}
            made = admin.post("/api/admin/import", params=asked, content=sent.content, headers=headers)
            assert made.status_code == 201, made.text
            acts = [(one["action"], one["about"]) for one in admin.get("/api/admin/actions").json()]
        assert acts[:2] == [("imported", "second"), ("exported", "cartpole")], acts
        opened(sent.content, given)
        left = stack.compose("exec", "-T", "labeler", "ls", "-A", "/data/spool").split()
        assert left == [], f"the spool was not cleared: {left}"
        said = stack.lockstep("export", "cartpole", "/tmp/exported", "--format", "dataset")
        assert said.strip() == "written: /tmp/exported", said
        stack.lockstep("teach", "second")
        second = stack.report("second")
    assert second["state"] == "finished", second["state"]
    past, trained = second["rounds"]
    assert past["labels"]["given"] == given, past
    learned = learned_from(trained)
    own = trained["labels"]["given"]
    assert learned == given + own, f"the reward model learned from {learned} labels, not {given} + {own}"
    say(
        f"transfer: an archive of {len(sent.content) / 1e6:.1f} MB went out and came in again; the second "
        f"experiment's reward model learned from {given} labels of the first and {own} of its own"
    )


def opened(archive: bytes, given: int) -> None:
    """Look into the archive: the tables are there, and every label."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        assert zipped.testzip() is None
        names = {name.removeprefix("cartpole/") for name in zipped.namelist()}
        lines = zipped.read("cartpole/preferences.jsonl").decode().splitlines()
    assert {"README.md", "preferences.parquet", "clips.parquet", "rounds.parquet"} <= names, sorted(names)
    assert len([line for line in lines if json.loads(line)["withdrawn_at"] is None]) == given


def learned_from(round_: Any) -> int:
    """Return how many labels the round's reward model saw, those held out among them."""
    seen = round_["metrics"]["training_reward"]
    return int(seen["train/labels"]) + int(seen.get("held_out/labels", 0))
