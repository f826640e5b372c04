"""Redis with a memory limit, with passwords, with certificates; URLs without secrets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import trustme
from redis.backoff import NoBackoff
from redis.retry import Retry

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import (
    Failure,
    QueueFullError,
    QueueUnavailableError,
    SettingsError,
    StartupError,
)
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.intake import Intake
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.ledger.server import check_server
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.settings import Settings, load_settings
from reddit_assets_tests.factories import ALL_SERVERS, claim_jobs

LAYOUT = Layout.of(Path("/data"))


def jobs(count: int) -> list[Job]:
    return [Job(Kind.EMBED, f"as/A/c_{number}", "1-1") for number in range(count)]


@ALL_SERVERS
def test_a_full_server_refuses_new_jobs_whole_and_lets_work_end(own_valkey) -> None:
    server = own_valkey(maxmemory="4mb")
    queue = JobQueue(connect(Settings(redis_url=server.url)), Kind.EMBED)
    with pytest.raises(QueueFullError, match="maxmemory"):
        queue.enqueue(jobs(100_000), LAYOUT)
    counts = queue.counts()
    assert counts.queued == counts.public > 0, "a chunk is in the queue whole or not at all"
    (claim,) = claim_jobs(queue, "w", 1, 30) or []
    assert queue.acknowledge(claim, Result(claim.id, "embeddings", claim.key))
    assert queue.counts().outbox == 1


def test_redis_that_is_not_there_is_a_sentence_without_secrets() -> None:
    queue = JobQueue(connect(Settings(redis_url="redis://u:hush@127.0.0.1:1/0")), Kind.EMBED)
    with pytest.raises(QueueUnavailableError) as caught:
        queue.counts()
    assert "127.0.0.1:1" in str(caught.value)
    assert "Start it" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_url_that_is_none_is_a_sentence_without_secrets() -> None:
    with pytest.raises(SettingsError, match="not a Redis URL") as caught:
        connect(Settings(redis_url="http://u:hush@host"))
    assert "hush" not in str(caught.value)
    assert "hush" not in repr(Settings(redis_url="redis://u:hush@host"))


def test_a_wrong_password_is_a_sentence(own_valkey) -> None:
    server = own_valkey(requirepass="right")
    wrong = server.url.replace("redis://", "redis://:wrong@")
    with pytest.raises(QueueUnavailableError, match="user or password"):
        JobQueue(connect(Settings(redis_url=wrong)), Kind.EMBED).counts()
    right = server.url.replace("redis://", "redis://:right@")
    assert JobQueue(connect(Settings(redis_url=right)), Kind.EMBED).counts().queued == 0


class TlsFront(threading.Thread):
    """Ends TLS in front of a plain server: the wheel's Valkey is built without it."""

    def __init__(self, context: ssl.SSLContext, target: int) -> None:
        super().__init__(daemon=True)
        self._context, self._target = context, target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            try:
                front = self._context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                continue  # the client does not trust the certificate
            back = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((front, back), (back, front)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.close()

    def stop(self) -> None:
        self._listener.close()


def test_tls_with_certificate_checks(valkey_server: ValkeyServer, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    stranger.cert_pem.write_to_path(tmp_path / "other.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    assert valkey_server.port is not None
    front = TlsFront(context, valkey_server.port)
    front.start()
    try:
        url = f"rediss://127.0.0.1:{front.port}/0"
        trusted = Settings(redis_url=url, redis_ca_file=tmp_path / "ca.crt")
        assert JobQueue(connect(trusted), Kind.EMBED).counts().queued == 0
        for file in (tmp_path / "other.crt", None):
            settings = Settings(redis_url=url, redis_ca_file=file)
            with pytest.raises(QueueUnavailableError, match="cannot be reached"):
                JobQueue(connect(settings), Kind.EMBED).counts()
    finally:
        front.stop()


# --- errors ------------------------------------------------------------------------------
class Front(threading.Thread):
    """A server in front of another one, or of none, that answers as ``serve`` says."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__(daemon=True)
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._guarded, args=(client,), daemon=True).start()

    def _guarded(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self._serve(client)

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def front() -> Iterator[Callable[[Callable[[socket.socket], None]], Front]]:
    fronts: list[Front] = []

    def make(serve: Callable[[socket.socket], None]) -> Front:
        fronts.append(Front(serve))
        return fronts[-1]

    yield make
    for one in fronts:
        one.stop()


def answers(reply: bytes) -> Callable[[socket.socket], None]:
    """A server that greets, and gives every other command this reply."""

    def serve(client: socket.socket) -> None:
        while data := client.recv(65536):
            if b"HELLO" in data:
                client.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n")
            elif b"CLIENT" in data:
                client.sendall(b"+OK\r\n" * data.count(b"CLIENT"))
            else:
                client.sendall(reply)

    return serve


REPLIES = {
    "BUSY Redis is busy running a script.": "Wait until it ends",
    "BUSY Valkey is busy running a script.": "SCRIPT KILL",
    "NOREPLICAS Not enough good replicas to write.": "Start its replicas",
    "CLUSTERDOWN Hash slot not served": "redis-cli --cluster check",
    "CLUSTERDOWN The cluster is down": "does not serve the queue's slot",
    "TRYAGAIN Multiple keys request during rehashing of slot": "Wait until the slot has moved",
    "READONLY You can't write against a read only replica.": "Name the primary",
    "MASTERDOWN Link with MASTER is down": "Start the primary",
    "MOVED 3999 10.0.0.9:6381": "Name that node",
    "ASK 3999 10.0.0.9:6381": "Wait until the slot has moved",
    "LOADING Redis is loading the dataset in memory": "still reading its data",
    "NOSCRIPT No matching script. Please use EVAL.": "not a proxy",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "choose another one",
    "NOPERM this user has no permissions to run the 'evalsha' command": "Access control",
    "NOAUTH Authentication required.": "Correct REDIS_URL",
    "WRONGPASS invalid username-password pair": "user or password",
    "MISCONF Redis is configured to save RDB snapshots": "Make room on its disk",
    "OOM command not allowed when used memory > 'maxmemory'.": "Raise maxmemory",
    "ERR Error running script (call to f_1): @user_script:5: -OOM command not allowed": "maxmemory",
    "ERR Error running script (call to f_1): @user_script:5: -READONLY You can't": "the primary",
    "EXECABORT Transaction discarded because of previous errors.": "Its log may say more",
    "ERR max number of clients reached": "max number of clients reached",
    "UNKNOWNWORD of a newer server": "of a newer server",
}


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply[:32])
def test_every_error_reply_is_a_sentence_that_says_what_to_do(front, reply: str) -> None:
    # Given a server that answers everything with this error
    port = front(answers(f"-{reply}\r\n".encode())).port
    queue = JobQueue(connect(Settings(redis_url=f"redis://127.0.0.1:{port}/0")), Kind.EMBED)
    full = "OOM" in reply or "MISCONF" in reply
    # If anything is asked of it, Then it is our error, with a hint; a worker waits on both kinds.
    for ask in (queue.dead_since, queue.counts, lambda: queue.enqueue(jobs(1), LAYOUT)):
        with pytest.raises(QueueFullError if full else QueueUnavailableError) as caught:
            ask()
        assert REPLIES[reply] in str(caught.value)
        assert f"127.0.0.1:{port}" in caught.value.message
        assert caught.value.hint.endswith(".")


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02"])
def test_another_program_on_the_port_is_a_sentence(front, reply: bytes) -> None:
    port = front(answers(reply)).port
    queue = JobQueue(connect(Settings(redis_url=f"redis://127.0.0.1:{port}/0")), Kind.EMBED)
    with pytest.raises(QueueUnavailableError, match=r"REDIS_URL|reached"):
        queue.counts()


def test_a_refused_connection_is_said_in_words() -> None:
    queue = JobQueue(connect(Settings(redis_url="redis://127.0.0.1:1/0")), Kind.EMBED)
    with pytest.raises(QueueUnavailableError, match=r"reached: connection refused\."):
        queue.counts()


@ALL_SERVERS
def test_a_replica_and_a_server_without_replicas_refuse_in_words(own_valkey) -> None:
    # Given a server that must not write, for one reason and for another
    server = own_valkey(min_replicas_to_write="1")
    client = connect(Settings(redis_url=server.url))
    queue = JobQueue(client, Kind.EMBED)
    with pytest.raises(QueueUnavailableError, match="too few replicas"):
        queue.enqueue(jobs(1), LAYOUT)
    client.config_set("min-replicas-to-write", "0")
    queue.enqueue(jobs(1), LAYOUT)
    client.config_set("replica-serve-stale-data", "yes")
    client.replicaof("127.0.0.1", "1")
    with pytest.raises(QueueUnavailableError, match="Name the primary"):
        claim_jobs(queue, "w", 1, 30)
    # If it may write again, Then nothing is lost.
    client.replicaof("NO", "ONE")
    assert len(claim_jobs(queue, "w", 1, 30) or []) == 1


@ALL_SERVERS
def test_a_server_busy_with_a_script_is_said_in_words(own_valkey) -> None:
    server = own_valkey(lua_time_limit="50")
    queue = JobQueue(connect(Settings(redis_url=server.url)), Kind.EMBED)
    queue.enqueue(jobs(1), LAYOUT)
    endless = connect(Settings(redis_url=server.url))

    def loop() -> None:
        with contextlib.suppress(redis.exceptions.RedisError):
            endless.eval("while true do end", 0)

    thread = threading.Thread(target=loop)
    thread.start()
    time.sleep(0.3)
    with pytest.raises(QueueUnavailableError, match="busy with a script"):
        claim_jobs(queue, "w", 1, 30)
    queue.client.script_kill()
    thread.join(10)
    assert len(claim_jobs(queue, "w", 1, 30) or []) == 1


@ALL_SERVERS
def test_a_name_that_another_program_uses_is_said_in_words(valkey_url: str) -> None:
    queue = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    queue.client.set(f"{queue.prefix}queued", "text")
    with pytest.raises(QueueUnavailableError, match="choose another one"):
        queue.enqueue(jobs(1), LAYOUT)


# --- a reply that is lost ----------------------------------------------------------------
class LossyFront:
    """Passes commands and replies on, and loses the reply to the next script that runs."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._script = False  # the command in work runs a script
        self.lose_next = False
        self.lost = 0

    def serve(self, client: socket.socket) -> None:
        # A command or a reply may arrive in several pieces: each way has a thread of its own.
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            back = threading.Thread(target=self._pass_back, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while data := client.recv(1 << 20):
                    if data.startswith(b"*"):
                        self._script = b"EVALSHA" in data
                    server.sendall(data)
                server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while reply := server.recv(1 << 20):
                if self.lose_next and self._script and not reply.startswith(b"-NOSCRIPT"):
                    self.lose_next, self.lost = False, self.lost + 1
                    break  # the script ran, and nobody hears of it
                client.sendall(reply)
            client.shutdown(socket.SHUT_RDWR)


@ALL_SERVERS
@pytest.mark.parametrize("step", ["claim", "acknowledge", "fail", "crashed", "release"])
def test_a_call_whose_reply_was_lost_is_answered_and_not_repeated(
    valkey_server: ValkeyServer, valkey_url: str, front, step: str
) -> None:
    # Given a connection that breaks after a script ran and before its reply:
    assert valkey_server.port is not None
    lossy = LossyFront(valkey_server.port)
    port = front(lossy.serve).port
    queue = JobQueue(connect(Settings(redis_url=f"redis://127.0.0.1:{port}/0")), Kind.EMBED)
    direct = JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED)
    queue.enqueue(jobs(3), LAYOUT)
    if step == "claim":
        queue.counts()
        lossy.lose_next = True
    (claim,) = claim_jobs(queue, "w", 1, 30) or []
    if step == "claim":
        assert direct.counts().leased == 1, "no lease is nobody's"
        assert claim.key == "as/A/c_0"
    failure, result = Failure("broken"), Result(claim.id, "embeddings", claim.key)
    lossy.lose_next = step != "claim"
    # If the client sends the call again, Then the answer is the first one's:
    if step == "acknowledge":
        assert queue.acknowledge(claim, result, rows=7)
        counts = direct.counts()
        assert (counts.outbox, counts.totals["done"], counts.totals["rows"]) == (1, 1, 7)
    elif step == "fail":
        assert queue.fail(claim, failure, max_attempts=3, retry_seconds=60) == "delayed"
        assert direct.counts().totals["failed"] == 1
    elif step == "crashed":
        assert queue.crashed([(claim, True)], failure, max_crashes=3) == {claim.token: "suspect"}
        assert direct.counts().totals["crashed"] == 1
    elif step == "release":
        assert queue.release([claim]) == 1
    assert lossy.lost == 1
    assert "rejected" not in direct.counts().totals


def test_a_claim_after_an_outage_finds_the_jobs_of_the_claim_before_it(
    valkey_server: ValkeyServer, valkey_url: str, front
) -> None:
    # Given a claim whose replies are lost as often as the client tries:
    assert valkey_server.port is not None
    lossy = LossyFront(valkey_server.port)
    port = front(lossy.serve).port
    queue = JobQueue(connect(Settings(redis_url=f"redis://127.0.0.1:{port}/0")), Kind.EMBED)
    queue.enqueue(jobs(3), LAYOUT)
    queue.counts()
    intake = Intake(queue, LAYOUT)
    queue.client.connection_pool.disconnect()
    queue.client.connection_pool.reset()
    queue.client.get_connection_kwargs()["retry"] = Retry(NoBackoff(), 0)
    lossy.lose_next = True
    with pytest.raises(QueueUnavailableError):
        intake.claim("w", 2, 30, alone=True)
    # If the worker asks again, Then it holds what was leased to it, and no more.
    assert len(intake.claim("w", 2, 30, alone=True).claims) == 2
    assert JobQueue(connect(Settings(redis_url=valkey_url)), Kind.EMBED).counts().leased == 2


def test_settings_come_from_the_environment_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://h:1/0")
    monkeypatch.setenv("REDDIT_LEASE_SECONDS", "7")
    settings = load_settings(root="/data", lease_seconds=None)
    assert settings.require_redis_url() == "redis://h:1/0"
    assert (settings.lease_seconds, settings.root) == (7.0, Path("/data"))
    again = settings.environment()
    assert again["REDIS_URL"] == "redis://h:1/0"
    monkeypatch.setenv("REDDIT_LEASE_SECONDS", "soon")
    with pytest.raises(SettingsError, match="lease_seconds"):
        load_settings()


def test_a_missing_setting_is_a_sentence() -> None:
    with pytest.raises(SettingsError, match="REDIS_URL is not set"):
        Settings(redis_url=None).require_redis_url()
    with pytest.raises(SettingsError, match="REDDIT_ROOT is not set"):
        Settings(root=None).require_root()


def test_every_setting_has_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@ALL_SERVERS
def test_what_endangers_the_queue_is_said_at_the_start(own_valkey) -> None:
    # Given a server as deploy/redis.conf wants it, then there is nothing to say
    good = own_valkey(appendonly="yes", maxmemory="100mb", maxmemory_policy="noeviction")
    assert check_server(connect(Settings(redis_url=good.url))) == []
    # Given one that evicts and keeps nothing, then each is said with what to set
    bad = own_valkey(appendonly="no", maxmemory="100mb", maxmemory_policy="allkeys-lru")
    evicts, forgets = check_server(connect(Settings(redis_url=bad.url)))
    assert "allkeys-lru" in evicts
    assert "noeviction" in evicts
    assert "Set appendonly to yes" in forgets


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"redis_version": "5.0.14"}, "too old"),
        ({"redis_version": "6.0.16"}, "too old"),
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "a cluster of 6 nodes"),
    ],
)
def test_a_server_that_cannot_hold_the_queue_is_refused(
    monkeypatch: pytest.MonkeyPatch, valkey_url: str, facts: dict[str, object], said: str
) -> None:
    # Given a server that says it is too old, or a cluster (neither can be started here)
    client = connect(Settings(redis_url=valkey_url))
    monkeypatch.setattr(client, "info", lambda: facts)
    monkeypatch.setattr(client, "execute_command", lambda *_: "cluster_known_nodes:6\r\n")
    # Then it is refused with a sentence
    with pytest.raises(StartupError, match=said):
        check_server(client)
