"""Redis with a memory limit, with passwords, with certificates; URLs without secrets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from reddit_assets.corpus.layout import Layout
from reddit_assets.errors import QueueFullError, QueueUnavailableError, SettingsError
from reddit_assets.ledger.connection import connect
from reddit_assets.ledger.job import Job, Kind, Result
from reddit_assets.ledger.queue import JobQueue
from reddit_assets.local.servers import ValkeyServer
from reddit_assets.settings import Settings, load_settings
from reddit_assets_tests.factories import claim_jobs

LAYOUT = Layout.of(Path("/data"))


def jobs(count: int) -> list[Job]:
    return [Job(Kind.EMBED, f"as/A/c_{number}", "1-1") for number in range(count)]


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
