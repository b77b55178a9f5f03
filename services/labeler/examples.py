"""Examples of all that the API takes and gives, by the name of its schema, or by the place of a call."""

from typing import Any

AT, LATER = "2026-05-04T09:30:00Z", "2026-05-04T09:42:10Z"
SUM = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CONFIG: dict[str, Any] = {
    "name": "cartpole", "env_id": "CartPole-v1", "seed": 1, "rounds": 5,
    "labels": {"comparisons_per_round": 16, "instructions": "Which cart holds its pole more upright?"},
    "agent": {"total_steps": 8192},
}  # fmt: skip
CLIP = {"id": 7, "url": "/api/clips/7.mp4?v=9f86d081884c7d65", "steps": 15, "fps": 15.0}
OTHER = {"id": 8, "url": "/api/clips/8.mp4?v=60303ae22b998861", "steps": 15, "fps": 15.0}
COMPARISON = {"id": 4, "batch": "5d3c0b1f", "clips": [CLIP, OTHER], "expires_at": LATER}
ME = {"id": 3, "name": "ada", "kind": "person", "labels": 12}
INVITED = {
    "id": 5, "name": "ada", "labeler": None, "state": "open", "made_by": "admin", "created_at": AT,
    "expires_at": "2026-05-11T09:30:00Z", "used_at": None, "revoked_at": None,
}  # fmt: skip
ATTEMPT: dict[str, Any] = {
    "id": 9, "stage": "training_agent", "number": 1, "state": "succeeded", "progress": 1.0, "hints": 1,
    "not_before": AT, "lease_until": None, "claimed_at": AT, "first_step_at": AT, "ended_at": LATER,
    "worker": {"host": "gpu1", "pid": 31, "device": "cpu", "torch": "2.13.0"},
    "metrics": {"charts/predicted_return": 21.5}, "error": None,
}  # fmt: skip
BRIEF = {"name": "cartpole", "state": "running", "reason": None, "created_at": AT, "ended_at": None}
ROW = {
    **BRIEF, "id": 1, "round": 2, "of": 5, "round_state": "training_agent", "given": 16, "wanted": 16,
    "progress": 0.4, "last_event": 57,
}  # fmt: skip
HISTORY = {
    "id": 1, "event": "created", "source": None, "target": "running", "attempt_id": None, "round": None,
    "actor": "admin", "at": AT, "detail": {"origin": "the preset cartpole"},
}  # fmt: skip
ROUND: dict[str, Any] = {
    "number": 1, "state": "done", "failed_stage": None, "error": None, "created_at": AT, "changed_at": LATER,
    "frozen_at": LATER, "label_set_sha256": SUM, "labels": {"given": 16, "wanted": 16, "withdrawn": 1},
    "seconds": {"collecting": 3.1, "labeling": 95.0, "training_reward": 1.2, "training_agent": 6.4},
    "timeline": [
        {
            "stage": "training_agent", "began_at": AT, "ended_at": LATER, "seconds": 6.4, "attempts": [9],
            "says": None,
        }
    ],
    "metrics": {"training_agent": {"charts/predicted_return": 21.5}},
    "evaluation": {"mean": 130.5, "true_returns": [120.0, 141.0]},
    "artifacts": {
        "agent": {
            "key": "experiments/cartpole/round-0001/training_agent/attempt-001-9/agent.safetensors",
            "sha256": SUM, "size": 38400,
        }
    },
    "video": "/api/admin/experiments/cartpole/rounds/1/video.mp4?v=9f86d081884c7d65",
    "attempts": [ATTEMPT],
}  # fmt: skip
ANSWER = {
    "labeler": "ada", "kind": "person", "ranks": [0, 1], "shown": [1, 0], "said": "right", "seconds": 2.4,
    "answered_at": AT, "withdrawn_at": None,
}  # fmt: skip

FILM = {
    "round": 1, "state": "done", "video": "/api/experiments/cartpole/rounds/1/video.mp4?v=9f86d081884c7d65",
}  # fmt: skip

EXAMPLES: dict[str, Any] = {
    # what clients send
    "NewLabeler": {"name": "ada", "kind": "person"},
    "Rename": {"name": "ada l."},
    "Token": {"token": "the token you were given"},
    "NewInvitation": {"name": "ada", "days": 7},
    "Redeem": {"token": "what stands behind the # of the link", "name": "ada"},
    "ClaimBody": {"count": 3},
    "PreferenceBody": {"comparison": 4, "ranks": [0, 1], "seconds": 2.4},
    "NewExperiment": {"config": CONFIG, "origin": "the preset cartpole", "labels_from": None},
    "Reason": {"reason": "the paddle learned nothing in five rounds"},
    # what they get
    "Health": {"status": "ok"},
    "Me": ME,
    "Joined": {"id": 3, "name": "ada", "kind": "person", "token": "shown this once"},
    "Welcome": {"name": "ada", "returning": False},
    "Invited": INVITED,
    "InvitedNow": {**INVITED, "link": "https://label.example.org/join#shown-this-once"},
    "LabelerSeen": {
        "id": 3, "name": "ada", "kind": "person", "labels": 12, "repeats": 4, "repeated": 3,
        "sessions": 1, "used_at": AT, "created_at": AT,
    },
    "Status": {
        "name": "cartpole", "state": "running", "instructions": "Which cart holds its pole more upright?",
        "batch": "5d3c0b1f", "round": 2, "of": 5, "round_state": "training_agent", "given": 16,
        "wanted": 16, "final_in_s": None,
        "wait": {
            "stages": [{"stage": "training_agent", "left_s": 3.5}, {"stage": "collecting", "left_s": 3.1}],
            "left_s": 6.6, "is_last": False,
        },
        "attempt": {"stage": "training_agent", "state": "running", "progress": 0.4, "eta_s": 3.5},
        "rounds": [
            FILM,
            {"round": 2, "state": "training_agent", "video": None},
        ],
    },
    "Film": {**FILM, "video": ROUND["video"]},
    "Agents": {
        "round": 2, "of": 5, "rounds": [FILM],
    },
    "PracticeView": {"done": 1, "of": 3, "comparisons": [{"id": 4, "clips": [CLIP, OTHER]}]},
    "Feedback": {"others": [0, 1], "most": 3, "of": 4, "agreed": True},
    "RoundOf": {"round": 1},
    "Act": {
        "id": 12, "at": AT, "actor": "admin", "address": "127.0.0.1", "action": "abandoned",
        "about": "cartpole", "detail": {"reason": "the paddle learned nothing in five rounds"},
    },
    "Reusable": {"name": "cartpole", "answers": 80, "given_with": {"env_id": "CartPole-v1"}},
    "ComparisonView": COMPARISON,
    "OwnAnswers": {
        "frozen": False,
        "answers": [
            {"id": "0b0c6b3e-6a83-4a2b-8f63-f5a7c4b6a111", "ranks": [0, 1], "comparison": COMPARISON}
        ],
    },
    "Claims": {
        "comparisons": [COMPARISON], "state": "labeling", "experiment_state": "running", "given": 5,
        "wanted": 16,
    },
    "Renewed": {"expires_at": LATER},
    "Counted": {"given": 6, "wanted": 16},
    "TeacherView": {"clips": [{"id": 7, "judgement": [1.0, 1.0, 0.0]}]},
    "ExperimentRow": ROW,
    "ExperimentReport": {
        **BRIEF, "config": CONFIG, "rounds": [ROUND],
        "labelers": [{"name": "ada", "kind": "person", "labels": 16}], "history": [HISTORY],
    },
    "EventRow": {
        **HISTORY, "id": 41, "event": "frozen", "round": 1, "actor": "coordinator", "source": "labeling",
        "target": "training_reward", "attempt_id": None, "detail": None,
    },
    "Ended": {"ended": 2},
    "ChartView": {
        "id": "returns", "title": "Returns", "columns": ["round", "predicted", "true"],
        "rows": [[1, 3.0, 22.0], [2, 9.5, 61.0]], "drawn": ["predicted", "true"], "kind": "lines",
        "unit": "return", "says": ["The correlation over the rounds is 1.00."], "warning": None,
        "figure": {"data": [], "layout": {}},
    },
    "ComparisonPage": {
        "total": 16, "next_after": 1,
        "comparisons": [
            {
                "id": 4, "number": 1, "held_out": False, "labels_given": 1, "labels_wanted": 1,
                "clips": [
                    {**CLIP, "best": 0.8, "rewards": [0.1, 0.4]},
                    {**OTHER, "best": 0.2, "rewards": [0.0, -0.3]},
                ],
                "answers": [ANSWER],
            }
        ],
    },
    "Problem": {
        "type": "about:blank", "title": "Not Found", "status": 404, "reason": "unknown",
        "detail": "there is no experiment named cartpole",
    },
    # what no schema has a name for
    "GET /api/admin/presets": {"cartpole": CONFIG},
    "POST /api/admin/import body": "the bytes of the archive",
}  # fmt: skip
