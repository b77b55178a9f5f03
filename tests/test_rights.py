"""Who may do what: every service with its own accounts in Postgres, Redis and S3, and the doors shut to it.

The accounts are those that `docker/secrets.sh` makes. Only the servers' addresses differ, and here Postgres
asks nobody for a password.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis
from botocore.exceptions import ClientError

from services.teachers import Lesson, Teacher, teach
from shared import grants
from shared.backup import BackupError, backup
from shared.database import Database
from shared.settings import Settings, load_settings
from shared.storage import StoreError, open_store
from shared.storage_s3 import connect
from tests import parts, services
from tests.parts import HASTE, part, tiny
from tests.test_compose import make_secrets

pytestmark = pytest.mark.timeout(300)  # the first test waits for a whole run
SERVICES = ("migrate", "labeler", "coordinator", "worker")
PARTS = {
    "services.labeler": "labeler",
    "services.coordinator": "coordinator",
    "services.agent_trainer.worker": "worker",
    "services.reward_trainer.worker": "worker",
}


# ------------------------------------------------------------------------ an installation


@dataclass
class Installation:
    """Servers with accounts, and each service's own settings."""

    settings: dict[str, Settings]
    redis_log: str  # Redis's address for one who may read what it refused: of this test alone
    refusals: list[Any] = field(default_factory=list)  # Redis's, after a whole run

    def sql(self, service: str) -> "psycopg.Connection[Any]":
        return psycopg.connect(plain(self.settings[service].database_url), autocommit=True)


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:")


@pytest.fixture(scope="module")
def installation(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Everything as `docker compose up` makes it: secrets, roles (twice), what `services.migrate` grants."""
    folder = tmp_path_factory.mktemp("rights")
    kept = folder / "secrets"
    make_secrets(kept)
    make_secrets(kept, "s3", "own")
    with ExitStack() as stack:
        for _ in range(2):
            subprocess.run(
                [services.find("psql"), "-qX", "-v", "ON_ERROR_STOP=1", "-f", kept / "postgres" / "roles.sql",
                 postgres_url],
                check=True,
            )  # fmt: skip
        stack.callback(forget_roles, postgres_url)
        config, key = kept / "redis" / "users.conf", (kept / "redis" / "password").read_text()
        config.write_text(config.read_text() + f"user log on >{key} -@all +acl|log\n")
        home = stack.enter_context(services.folder_of("redis"))
        launch, redis_url = services.redis_in(home, str(config))

        def answers() -> None:
            with redis.Redis.from_url(redis_url, password=key) as client:
                client.ping()

        stack.enter_context(services.running(replace(launch, answers=answers)))
        launch, account = services.s3_in(
            stack.enter_context(services.folder_of("s3")),
            services.identity(
                "lockstep-labeler", (kept / "minio" / "labeler_secret").read_text(),
                "Read:lockstep/artifacts/*", "Write:lockstep/artifacts/imported/*",
            ),
            services.identity(
                "lockstep-worker", (kept / "minio" / "worker_secret").read_text(),
                "Read:lockstep/artifacts/*", "Write:lockstep/artifacts/*",
            ),
        )  # fmt: skip
        stack.enter_context(services.running(launch))
        made = {}
        for service in SERVICES:
            given: dict[str, Any] = {
                "data_dir": folder / service, "secrets_dir": kept / service,
                "port": services.free_ports(1)[0], "s3_endpoint": account.endpoint,
                "store_url": "s3://lockstep/artifacts", **HASTE,
            }  # fmt: skip
            url = (kept / service / "lockstep_database_url").read_text()
            given["database_url"] = url.replace("postgres:5432", urlsplit(postgres_url).netloc.split("@")[1])
            here = urlsplit(redis_url).netloc
            if service == "migrate":
                given |= {"s3_access_key": account.access_key, "s3_secret_key": account.secret_key}
                given["broker_url"] = f"redis://:{key}@{here}/0"  # it has none; here: the health check's
            else:
                url = (kept / service / "lockstep_broker_url").read_text()
                given["broker_url"] = url.replace("redis:6379", here)
            (folder / service).mkdir()
            made[service] = load_settings(**given)
        environment = parts.environment(made["migrate"])
        subprocess.run([sys.executable, "-m", "services.migrate"], check=True, env=environment)
        assert grants.grant(made["migrate"].database_url) == list(grants.ROLES)  # as often as one likes
        root = connect(account.endpoint, account.access_key, account.secret_key, "us-east-1")
        root.put_bucket_policy(Bucket="lockstep", Policy=json.dumps(services.NO_DELETING))
        yield Installation(made, f"redis://log:{key}@{here}/0")


def forget_roles(server: str) -> None:
    """Leave the server as the other tests found it."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE lockstep WITH (FORCE)")
        for role in (*grants.ROLES, grants.OWNER):
            connection.execute(f"DROP ROLE {role}")


@pytest.fixture(scope="module")
def lived_in(installation: Installation) -> Installation:
    """An installation in which an experiment ran from beginning to end, and others were ended half way."""
    labeler = installation.settings["labeler"]
    url = f"http://127.0.0.1:{labeler.port}"
    assert labeler.admin_token
    assert labeler.teacher_token
    with ExitStack() as stack:
        for module, service in PARTS.items():
            stack.enter_context(part(module, installation.settings[service]))
        admin = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        admin.headers["Authorization"] = f"Bearer {labeler.admin_token.get_secret_value()}"
        parts.until(lambda: answers_at(url))
        people = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        whole = tiny("whole", agent={"checkpoint_steps": 128})  # of 512: checkpoints come and go
        for config in (whole, tiny("paused")):
            ok(admin.post("/api/admin/experiments", json={"config": config.model_dump(mode="json")}))
        as_a_person(people, "paused")
        for action in ("pause", "resume", "finish"):
            ok(admin.post(f"/api/admin/experiments/paused/{action}", json={"reason": "a test"}))
        assert teach(Lesson(url, "whole", Teacher("oracle"), labeler.teacher_token.get_secret_value())) == 6
        report = ok(admin.get("/api/admin/experiments/whole")).json()
        assert report["state"] == "finished", report
        assert [one["state"] for round_ in report["rounds"] for one in round_["attempts"]] == [
            "succeeded"
        ] * 6
        assert all(len(round_["evaluation"]["true_returns"]) == 3 for round_ in report["rounds"])
        pages = (
            "/readyz",
            "/metrics",
            "/admin",
            "/admin/whole",
            "/admin/whole/rounds/1",
            "/api/experiments/whole",
        )
        parts_of_it = ("charts", "events", "rounds/1/comparisons")
        for path in (*pages, *(f"/api/admin/experiments/whole/{one}" for one in parts_of_it)):
            ok(admin.get(path))
    with redis.Redis.from_url(installation.redis_log) as log:
        installation.refusals += log.acl_log()
    return installation


def ok(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text[:500]}"
    return answer


def answers_at(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False


def as_a_person(client: httpx.Client, name: str) -> None:
    """Join, rename, claim, watch, skip, answer, undo."""
    token = ok(client.post("/api/labelers", json={"kind": "person"})).json()["token"]
    client.headers["Authorization"] = f"Bearer {token}"
    ok(client.patch("/api/me", json={"name": "ada"}))
    path = f"/api/experiments/{name}/claims"
    first, second = parts.until(lambda: ok(client.post(path, json={"count": 2})).json()["comparisons"])
    film = ok(client.get(first["clips"][0]["url"])).content
    assert film[4:8] == b"ftyp"
    ok(client.post(f"/api/comparisons/{first['id']}/renew"))
    ok(client.post(f"/api/comparisons/{first['id']}/skip"))
    preference = f"/api/preferences/{uuid.uuid4()}"
    ok(client.put(preference, json={"comparison": second["id"], "ranks": [0, 1], "seconds": 1.0}))
    ok(client.delete(preference))


# ---------------------------------------------------------------------------- the doors


ALLOWED = [
    ("labeler", "SELECT per_step FROM judgements"),
    ("labeler", "SELECT mean FROM evaluations"),
    ("worker", "SELECT ranks FROM preferences"),
    ("coordinator", "SELECT name FROM labelers"),
    ("migrate", "SELECT * FROM labelers, judgements, evaluations LIMIT 1"),
]
REFUSED = [
    # What a teacher judges by, and the true returns: brought by workers, read by neither them nor the loop.
    ("worker", "SELECT clip_id FROM judgements"),
    ("worker", "SELECT count(*) FROM evaluations"),
    ("worker", "INSERT INTO evaluations SELECT * FROM evaluations"),
    ("worker", "UPDATE judgements SET per_step = '[0]'"),
    ("coordinator", "SELECT per_step FROM judgements"),
    ("coordinator", "SELECT mean FROM evaluations"),
    # Who labels, and what they said.
    ("worker", "SELECT token_sha256 FROM labelers"),
    ("worker", "SELECT * FROM labelers"),
    ("coordinator", "SELECT token_sha256 FROM labelers"),
    ("worker", "INSERT INTO preferences SELECT * FROM preferences"),
    ("worker", "UPDATE preferences SET ranks = '[1, 0]'"),
    ("labeler", "UPDATE preferences SET ranks = '[1, 0]'"),
    ("coordinator", "UPDATE comparisons SET labels_given = 0"),
    ("worker", "SELECT * FROM leases"),
    # What happened stays as it happened, and nobody removes anything.
    *[(service, "UPDATE events SET actor = 'nobody'") for service in ("labeler", "coordinator", "worker")],
    *[(service, "DELETE FROM events") for service in ("labeler", "coordinator", "worker")],
    *[(service, "TRUNCATE events") for service in ("labeler", "coordinator", "worker")],
    ("worker", "SELECT actor FROM events"),
    ("labeler", "DELETE FROM preferences"),
    ("labeler", "DELETE FROM labelers"),
    ("worker", "DELETE FROM clips"),
    # Work is the workers', configurations are what they were.
    ("labeler", "UPDATE attempts SET worker = NULL"),
    ("labeler", "UPDATE attempts SET lease_until = now() + interval '1 year'"),
    ("labeler", "INSERT INTO judgements VALUES (1, '[1]')"),
    ("labeler", "INSERT INTO evaluations VALUES (1, 1, '[1]', 1)"),
    ("labeler", "UPDATE artifacts SET sha256 = ''"),
    ("labeler", "UPDATE clips SET npz_key = npz_key"),
    ("labeler", "UPDATE experiments SET config = '{}'"),
    ("worker", "UPDATE artifacts SET key = 'another'"),
    ("worker", "INSERT INTO experiments SELECT * FROM experiments"),
    ("coordinator", "UPDATE experiments SET state = 'abandoned'"),
    # The schema is the owner's.
    ("labeler", "CREATE TABLE mine (id int)"),
    ("worker", "CREATE TEMP TABLE mine (id int)"),
    ("worker", "ALTER TABLE judgements DISABLE TRIGGER ALL"),
    ("coordinator", "DROP TABLE labelers"),
    ("labeler", "SELECT * FROM alembic_version"),
    ("labeler", "SET ROLE lockstep"),
    ("worker", "SET ROLE lockstep_labeler"),
    ("worker", "SELECT pg_read_file('/etc/passwd')"),
    ("migrate", "CREATE ROLE another"),
    ("migrate", "SELECT pg_read_file('/etc/passwd')"),
]  # fmt: skip


def refuses(installation: Installation, service: str, statement: str) -> bool:
    """Whether Postgres refuses the statement for want of a right, and for nothing else."""
    with installation.sql(service) as connection:
        try:
            connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


def test_each_role_does_its_work_and_nothing_else(lived_in: Installation) -> None:
    for service, statement in ALLOWED:
        with lived_in.sql(service) as connection:
            assert connection.execute(statement).fetchone(), f"{service}: {statement}"
    for service, statement in REFUSED:
        assert refuses(lived_in, service, statement), f"{service} may {statement}"


def test_events_are_kept_even_from_their_owner(lived_in: Installation) -> None:
    with lived_in.sql("migrate") as connection, pytest.raises(psycopg.errors.RaiseException):
        connection.execute("DELETE FROM events")


def test_a_backup_is_the_owners_to_make(lived_in: Installation, tmp_path: Path) -> None:
    owner, labeler = (lived_in.settings[name] for name in ("migrate", "labeler"))
    with closing(Database(owner.database_url)) as database:
        assert backup(database, owner.open_store(), tmp_path / "all.tar")["artifacts"] > 0
    with closing(Database(labeler.database_url)) as database, pytest.raises(BackupError, match="`migrate`"):
        backup(database, labeler.open_store(), tmp_path / "another.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["all.tar"]


def test_a_right_that_is_no_longer_wanted_is_taken_back(lived_in: Installation) -> None:
    with lived_in.sql("migrate") as connection:
        connection.execute("GRANT ALL ON judgements TO lockstep_worker")
        connection.execute("GRANT UPDATE (actor) ON events TO lockstep_labeler")
    assert grants.grant(lived_in.settings["migrate"].database_url) == list(grants.ROLES)
    assert refuses(lived_in, "worker", "SELECT * FROM judgements")
    assert refuses(lived_in, "labeler", "UPDATE events SET actor = ''")


def test_redis_is_for_hints_alone(lived_in: Installation) -> None:
    """Nobody may flush, configure or look around; labeler and coordinator cannot take hints away."""
    hint = [("LPUSH", "agent_trainer", "x"), ("EXISTS", "reward_trainer")]
    receive = [("BRPOP", "agent_trainer", "0.01"), ("ZADD", "unacked_index", "1", "x"), ("DEL", "unacked")]
    nobody = [
        ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SCAN", "0"), ("ACL", "LIST"),
        ("SHUTDOWN",), ("MONITOR",), ("CLIENT", "KILL", "ID", "1"), ("SAVE",),
        ("REPLICAOF", "NO", "ONE"), ("MODULE", "LIST"), ("SCRIPT", "FLUSH"), ("GET", "another"),
        ("LPUSH", "another", "x"), ("PUBLISH", "news", "x"), ("SORT", "agent_trainer"),
    ]  # fmt: skip
    may = {"labeler": hint, "coordinator": hint, "worker": hint + receive, "": []}
    addresses = {name: lived_in.settings[name or "migrate"].broker_url for name in may}
    for name, address in addresses.items():
        with redis.Redis.from_url(address) as client:
            assert client.ping()
            for command in hint + receive + nobody:
                try:
                    client.execute_command(*command)
                    allowed = True
                except redis.exceptions.NoPermissionError:
                    allowed = False
                assert allowed == (command in may[name]), f"{name or 'the health check'}: {command}"
    with (
        pytest.raises(redis.exceptions.AuthenticationError),
        redis.Redis.from_url(addresses["worker"].replace("worker:", "coordinator:")) as client,
    ):
        client.ping()


def test_celery_was_refused_nothing(lived_in: Installation) -> None:
    """All that the services asked of Redis in a whole run they were allowed: it keeps a log of refusals."""
    assert lived_in.refusals == []


def test_the_store_is_read_by_the_labeler_and_added_to_by_workers(lived_in: Installation) -> None:
    """The run above went well with these accounts; here is what they cannot do."""
    made = {name: lived_in.settings[name] for name in ("labeler", "worker")}
    with lived_in.sql("labeler") as connection:
        row = connection.execute("SELECT key, sha256 FROM artifacts").fetchone()
        assert row
        key, sha256 = row
    for settings in made.values():
        assert settings.open_store().get(key, sha256)
    made["worker"].open_store().put("experiments/of-a-test", b"1")
    with lived_in.sql("worker") as connection:  # the run above stored some, and they were of no more use
        assert connection.execute("SELECT id FROM checkpoints").fetchall() == []
    checkpoint, own = "experiments/1/checkpoint-000002.safetensors", made["worker"].open_store()
    own.put(checkpoint, b"1")
    with pytest.raises(StoreError, match="refused"):
        made["labeler"].open_store().delete(checkpoint)
    own.delete(checkpoint)
    for settings in made.values():
        store = settings.open_store()
        with pytest.raises(StoreError, match="refused"):
            list(store.list(""))
        with pytest.raises(StoreError, match="refused"):
            store.delete(key)
        assert store.get(key, sha256)
        assert settings.s3_endpoint
        assert settings.s3_secret_key
        secret = settings.s3_secret_key.get_secret_value()
        client = connect(settings.s3_endpoint, settings.s3_access_key, secret, "us-east-1")
        for refused, given in (
            (client.delete_bucket, {"Bucket": "lockstep"}),
            (client.create_bucket, {"Bucket": "another"}),
            (client.put_object, {"Bucket": "lockstep", "Key": "elsewhere", "Body": b"1"}),
            (client.put_bucket_policy, {"Bucket": "lockstep", "Policy": "{}"}),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                refused(**given)


def test_the_labeler_adds_the_clips_of_imports_and_removes_them(lived_in: Installation) -> None:
    store, key = lived_in.settings["labeler"].open_store(), "imported/of-a-test/0.npz"
    store.put(key, b"1")
    store.put(key, b"1")  # an answer that was lost, and asked for again
    assert store.get(key) == b"1"
    store.delete(key)
    assert not store.exists(key)
    for refused in ("experiments/of-another-test", "imported-not/0.npz"):
        with pytest.raises(StoreError, match="refused"):
            store.put(refused, b"1")


def test_a_wrong_account_is_noticed_at_the_start(installation: Installation) -> None:
    settings = installation.settings["labeler"]
    assert settings.s3_secret_key
    right = {"access_key": settings.s3_access_key, "secret_key": settings.s3_secret_key.get_secret_value()}
    for wrong in ({"secret_key": "0" * 48}, {"access_key": "nobody"}):
        with pytest.raises(StoreError, match="check its address, key and secret"):
            open_store(settings.store_url, endpoint=settings.s3_endpoint, **(right | wrong))
