"""`python -m tests.compose.check [NAME ...]`: bring the full size up with docker compose and try it.

It needs a Docker Engine, so it is no part of `make test`. Every check works on a project of its own and
removes it afterwards; an installation on the same machine is left alone. It prints what it measured, and
fails at the first thing that is not as it should be.
"""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.compose_ratio import compare
from tests.compose.stack import (
    COMBINATIONS,
    NEEDED,
    ROOT,
    Stack,
    attempts,
    free_port,
    free_ports_in_a_row,
    running,
    say,
    times,
    working,
)
from tests.compose.transfer import transfer

IDLE_S = 60.0  # the time over which idle services are watched
RUNS = 3  # of each size, to be compared
BRIDGE = "172.17.0.1"  # this machine as containers of every network reach it, by Docker's default
FEW = ("--set", "labels.comparisons_first_round=6", "--set", "labels.comparisons_per_round=6")
SMALL = ("--set", "rounds=1", *FEW)
LONG = (*SMALL, "--set", "agent.final_steps=200000")


def config() -> None:
    """Every combination of compose files is valid; only the worker's needs anything to be set."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
    for files in COMBINATIONS:
        arguments = [part for file in files for part in ("-f", file)]
        command = ["docker", "compose", *arguments, "config", "--quiet"]
        subprocess.run(command, cwd=ROOT, check=True, env=bare | NEEDED)
    subprocess.run(["docker", "compose", "config", "--quiet"], cwd=ROOT, check=True, env=bare)
    say(f"config: {len(COMBINATIONS)} combinations are valid")


def build() -> None:
    """Build the images, then once more after a change of code; say how large they are."""
    marker = ROOT / "shared" / "_changed.py"
    stack = Stack("lockstep-check")
    stack.compose("build", "--quiet", timeout=3600)
    try:
        marker.write_text(f"MOMENT = {time.time()}\n")
        began = time.monotonic()
        stack.compose("build", "--quiet")
        say(f"build with a line of code changed: {time.monotonic() - began:.1f} s for both images")
    finally:
        marker.unlink()
    stack.compose("build", "--quiet")
    for image in ("lockstep-web", "lockstep-trainer"):
        sizes = subprocess.run(
            ["docker", "history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image],
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        ours = next(i for i, line in enumerate(sizes) if "groupadd" in line) + 1
        size, base = (sum(int(line.split()[0]) for line in part) for part in (sizes, sizes[ours:]))
        say(f"{image}: {size / 1e6:.0f} MB, of which {(size - base) / 1e6:.0f} MB on top of the base image")


def first_pair() -> None:
    """From `docker compose up` on empty volumes to a pair to label; then idle, two whole runs, open doors."""
    began = time.monotonic()
    with running("lockstep-check") as stack:
        ready = time.monotonic()
        stack.lockstep("create", "configs/cartpole.toml")
        token = invite(stack, "somebody")
        created = time.monotonic()
        pair = claim(stack, "cartpole", token)
        labelable = time.monotonic()
        moments = [f"{moment - began:.1f} s" for moment in (ready, created, labelable)]
        say("first pair: labeler ready after {}, experiment there {}, pair {} (wanted: 30)".format(*moments))
        come_by_link(stack)
        video = httpx.get(stack.url + pair["clips"][0]["url"], headers=bearer(token), trust_env=False)
        assert video.headers["content-type"] == "video/mp4", video.text
        assert video.content[4:8] == b"ftyp"
        answer(stack, pair, token)

        idle(stack)

        run_to_the_end(stack, "cartpole")
        stack.lockstep("create", "configs/cartpole.toml", "--set", "name=warm")
        run_to_the_end(stack, "warm")
        exposed(stack)
        refused(stack)


def idle(stack: Stack) -> None:
    """Waiting for labels costs next to nothing."""
    time.sleep(5)
    before, began = stack.cpu_and_memory(), time.monotonic()
    time.sleep(IDLE_S)
    after, took = stack.cpu_and_memory(), time.monotonic() - began
    for service, (seconds, memory) in sorted(after.items()):
        percent = 100 * (seconds - before[service][0]) / took
        say(f"idle: {service:15} {percent:5.2f} % of a core (wanted: 2), {memory:4.0f} MiB")


def run_to_the_end(stack: Stack, name: str) -> None:
    """An oracle answers until the experiment ends."""
    stack.lockstep("teach", name)
    report = stack.report(name)
    assert report["state"] == "finished", report["state"]
    for one in attempts(report):
        assert {"host", "device", "torch"} <= {key for key, value in one["worker"].items() if value}, one
    means = [round_["evaluation"]["mean"] for round_ in report["rounds"]]
    failed = [a for a in attempts(report) if a["state"] != "succeeded"]
    begun, ended = (datetime.fromisoformat(report[name]) for name in ("created_at", "ended_at"))
    say(
        f"run {name}: {len(means)} rounds in {(ended - begun).total_seconds():.1f} s, mean true return "
        f"{', '.join(f'{mean:.0f}' for mean in means)}, {len(failed)} attempts failed"
    )


def exposed(stack: Stack) -> None:
    """Only the label page is reachable, on loopback; every service runs without rights."""
    for line in stack.compose("ps", "--format", "{{.Service}} {{.Ports}}").splitlines():
        service, _, ports = line.partition(" ")
        published = [port for port in ports.split(", ") if "->" in port]
        wanted = [f"127.0.0.1:{stack.port}->8000/tcp"] if service == "labeler" else []
        assert published == wanted, line
    for service in (
        "postgres",
        "redis",
        "minio",
        "labeler",
        "coordinator",
        "reward_trainer",
        "agent_trainer",
    ):
        status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        assert fields["Uid"].split()[0] != "0", f"{service} runs as root"
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, f"{service} has capabilities"
        assert fields["NoNewPrivs"].strip() == "1", service
        touched = stack.compose("exec", "-T", service, "sh", "-c", "touch /x 2>&1 || true")
        assert "Read-only file system" in touched, f"{service} can write to its root: {touched}"
    seen = stack.compose("exec", "-T", "coordinator", "ls", "/run/secrets").split()
    assert seen == ["lockstep_broker_url", "lockstep_database_url"], seen
    say("exposed: one port, on loopback; no service has root, capabilities or a file system to write to")


QUERY = """
import sys
from shared.database import Database, text
from shared.settings import load_settings
Database(load_settings().database_url).engine.connect().execute(text(sys.argv[1])).all()
"""
FLUSH = """
import redis
from shared.settings import load_settings
redis.Redis.from_url(load_settings().broker_url).flushall()
"""


def refused(stack: Stack) -> None:
    """A service's password opens what the service needs, and nothing else."""
    for service, statement, allowed in (
        ("agent_trainer", "SELECT name FROM labelers", True),
        ("agent_trainer", "SELECT token_sha256 FROM labelers", False),
        ("reward_trainer", "SELECT per_step FROM judgements", False),
        ("coordinator", "SELECT mean FROM evaluations", False),
        ("labeler", "DELETE FROM events RETURNING id", False),
    ):
        said = last_words(stack, service, QUERY, statement)
        assert allowed == (said == ""), f"{service}: {statement}: {said}"
        assert allowed or "permission denied for table" in said, said
    for service in ("labeler", "coordinator", "agent_trainer"):
        assert "NoPermissionError" in last_words(stack, service, FLUSH), f"{service} may flush Redis"
    say(
        "refused: no trainer reads judgements, true returns or tokens, nobody changes events or flushes Redis"
    )


def last_words(stack: Stack, service: str, program: str, *arguments: str) -> str:
    """Run a program of Python's in a service's container; return its error, empty if there is none."""
    run = ("exec", "-T", service, "sh", "-c", 'python -c "$@" 2>&1 || true', "sh")
    return stack.compose(*run, program, *arguments)


def backup() -> None:
    """What was backed up is there again after everything was removed, as docs/operations.md says."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # the container writes as a user of its own
        mounted = ("run", "--rm", "-T", "--volume", f"{folder}:/backup", "migrate", "lockstep")
        with running("lockstep-check") as stack:
            stack.lockstep("create", "configs/cartpole.toml", *SMALL)
            stack.lockstep("teach", "cartpole")
            before = stack.report("cartpole")
            stack.compose(*mounted, "backup", "/backup/all.tar")
            stack.down()
            stack.compose("up", "--detach", "--wait", "minio")
            stack.compose(*mounted, "restore", "/backup/all.tar")
            stack.compose("up", "--detach")
            stack.admin_token = ""
            stack.wait_healthy()
            after = stack.report("cartpole")
            assert after == before, "the backup is not what was backed up"
            stack.lockstep("create", "configs/cartpole.toml", "--set", "name=next", *SMALL)
            stack.lockstep("teach", "next")
            assert stack.report("next")["state"] == "finished"
        size = (Path(folder) / "all.tar").stat().st_size
    say(f"backup: {size / 1e6:.1f} MB brought everything back, and it goes on")


def scale() -> None:
    """Three agent trainers serve three experiments at once, and two labelers the same people."""
    first = free_ports_in_a_row()
    doors = [f"http://127.0.0.1:{port}" for port in (first, first + 1)]
    names = ["one", "two", "three"]
    with running("lockstep-check", LOCKSTEP_PORT=f"{first}-{first + 1}") as stack:
        stack.compose("up", "--detach", "--no-build", "--scale", "agent_trainer=3", "--scale", "labeler=2")
        for door in doors:
            stack.wait_healthy(door)
        for name in names:
            stack.lockstep("create", "configs/cartpole.toml", "--set", f"name={name}", *SMALL)
        ada, ben = invite(stack, "ada"), invite(stack, "ben")
        pair = claim(stack, "one", ada, doors[0])
        assert claim(stack, "one", ada, doors[1])["id"] == pair["id"], (
            "the other door forgot whose pair it is"
        )
        other = claim(stack, "one", ben, doors[1])
        assert other["id"] != pair["id"], "two replicas handed out the same pair"
        answer(stack, pair, ada, doors[1])  # claimed at one door, answered at the other
        answer(stack, other, ben, doors[0])
        with ThreadPoolExecutor() as pool:  # a teacher each: two of one name would take each other's token
            list(pool.map(lambda i: stack.lockstep("teach", names[i], "--seed", str(i)), range(3)))
        reports = [stack.report(name) for name in names]
    done: list[tuple[float, float, str]] = []
    for report in reports:
        assert report["state"] == "finished", report
        assert report["rounds"][0]["labels"]["given"] == report["rounds"][0]["labels"]["wanted"]
        seen = [(one["stage"], one["state"]) for one in attempts(report)]
        assert len(seen) == len(set(seen)) == 3, f"a stage was worked on twice: {attempts(report)}"
        (trained,) = [one for one in attempts(report) if one["stage"] == "training_agent"]
        done.append((*times(trained), trained["worker"]["host"]))
    hosts = {host for _, _, host in done}
    assert len(hosts) == 3, f"three experiments trained on {len(hosts)} trainers"
    overlap = min(end for _, end, _ in done) - max(start for start, _, _ in done)
    assert overlap > 0, f"the three never trained at the same time: {done}"
    say(f"scale: three experiments on three trainers, {overlap:.1f} s all at once; no stage worked on twice")


def move() -> None:
    """Move the trainers to another host in the middle of a round; nothing of the round changes.

    The other host is a project of its own: it shares no network with the first, and reaches it through its
    published ports alone, by TLS. The same experiment left alone must give the same weights.
    """
    ports = {f"WORKERS_{name}_PORT": str(free_port()) for name in ("POSTGRES", "REDIS", "S3")}
    files = ("docker-compose.yml", "docker-compose.remote.yml")
    here = {"WORKERS_BIND": BRIDGE, "WORKERS_HOST": BRIDGE, **ports}
    with running("lockstep-check", *files, **here) as stack, TemporaryDirectory() as folder:
        there = join(stack, Path(folder))
        try:
            stack.lockstep("create", "configs/cartpole.toml", "--set", "name=alone", *LONG)
            stack.lockstep("teach", "alone")
            stack.lockstep("create", "configs/cartpole.toml", "--set", "name=moved", *LONG)
            stack.lockstep("teach", "moved", "--labels", "6")
            until(stack, "moved", lambda report: working(report, "training_agent") > 0.2)
            began = time.monotonic()
            stack.compose("stop", "agent_trainer", "reward_trainer")
            there.compose("up", "--detach", "--no-build")
            report = until(stack, "moved", lambda report: report["state"] == "finished")
            took = time.monotonic() - began
        finally:
            there.down()
        alone = stack.report("alone")
    first, last = (one for one in attempts(report) if one["stage"] == "training_agent")
    assert first["state"] == "released", first
    assert last["worker"]["host"] == "another-host", last
    assert last["worker"]["device"], last
    assert last["worker"]["torch"], last
    sums = [one["rounds"][0]["artifacts"]["agent"]["sha256"] for one in (alone, report)]
    assert sums[0] == sums[1], "the move changed the agent's weights"
    say(
        f"move: finished {took:.1f} s after the trainers left, on {last['worker']['host']} "
        f"({last['worker']['device']}, torch {last['worker']['torch']}), with the weights of a run left alone"
    )


def join(stack: Stack, folder: Path) -> Stack:
    """Return the trainers' project of another host, set up as docs/operations.md says."""
    env, certificate = folder / "worker.env", folder / "worker.crt"
    env.write_text(stack.compose("run", "--rm", "-T", "secrets", "worker", BRIDGE))
    certificate.write_text(stack.compose("run", "--rm", "-T", "secrets", "certificate"))
    certificate.chmod(0o644)
    told = dict(line.split("=", 1) for line in env.read_text().splitlines())
    told |= {"TLS_CERTIFICATE": str(certificate), "WORKER_NAME": "another-host"}
    return Stack("lockstep-check-worker", ("docker-compose.worker.yml",), told)


def ratio() -> None:
    """A warm run with the oracle takes little longer than in the embedded size."""
    figures = compare(RUNS, {})
    say(f"ratio: {figures['ratio']} ({figures['full']} s to {figures['embedded']} s; at most 1.5 is wanted)")


def invite(stack: Stack, name: str) -> str:
    """Return the token of a new labeler."""
    return str(stack.admin("POST", "/api/labelers", {"name": name, "kind": "person"})["token"])


def come_by_link(stack: Stack) -> None:
    """Be somebody whom `lockstep invite` gave a link: it lets in once."""
    link = stack.lockstep("invite", "newcomer").split()[-1]
    _, _, token = link.partition("/join#")
    address, body = f"{stack.url}/api/invitations/redeem", {"token": token}
    first, second = (httpx.post(address, json=body, timeout=30, trust_env=False) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 410), (first.text, second.text)


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows a labeler's token."""
    return {"Authorization": f"Bearer {token}"}


def claim(stack: Stack, name: str, token: str, url: str = "") -> Any:
    """Return a pair to label, waited for."""
    address = f"{url or stack.url}/api/experiments/{name}/claims"
    for _ in range(1200):
        given = httpx.post(address, json={"count": 1}, headers=bearer(token), trust_env=False)
        given.raise_for_status()
        if given.json()["comparisons"]:
            return given.json()["comparisons"][0]
        time.sleep(0.1)
    raise TimeoutError(f"no pair to label: {stack.compose('logs', '--tail', '30')}")


def answer(stack: Stack, pair: Any, token: str, url: str = "") -> None:
    """Answer a pair as a person would."""
    body = {"comparison": pair["id"], "ranks": [0, 1], "seconds": 1.0}
    address = f"{url or stack.url}/api/preferences/{uuid.uuid4()}"
    httpx.put(address, json=body, headers=bearer(token), trust_env=False).raise_for_status()


def until(stack: Stack, name: str, good: Callable[[Any], bool], timeout: float = 300) -> Any:
    """Wait until an experiment's report is `good`, and return it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        report = stack.report(name)
        if good(report):
            return report
        time.sleep(0.2)
    raise TimeoutError(f"{name} is still {report['rounds'][-1]['state']}: {attempts(report)}")


CHECKS: dict[str, Callable[[], None]] = {
    "config": config,
    "build": build,
    "first_pair": first_pair,
    "backup": backup,
    "scale": scale,
    "move": move,
    "transfer": transfer,
    "ratio": ratio,
}


def main() -> None:
    """Run the checks named on the command line, all of them if none is."""
    unknown = set(sys.argv[1:]) - set(CHECKS)
    if unknown:
        raise SystemExit(f"no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    for name in sys.argv[1:] or CHECKS:
        CHECKS[name]()
    say("all is well")


if __name__ == "__main__":
    main()
