"""`deploy/nginx`: a real nginx before a real webserver, with a login for people and a token for
reports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from platform_stack import Stack, wait_for
from pydantic import SecretStr

from reddit_assets.errors import ReportingError
from reddit_assets.ledger.job import Kind, Result
from reddit_assets.ledger.outbox import Outbox, OutboxEntry
from reddit_assets.local.maps import MapServer
from reddit_assets.local.servers import free_port
from reddit_assets.platform.reporting.drain import Reporter
from reddit_assets.platform.reporting.rest import RestSink
from reddit_assets.settings import Settings

CONFIG = Path(__file__).parent.parent / "deploy" / "nginx" / "reddit-assets.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
KEY = "as/A/c_00"
LOGIN = ("ann", "pass-word")


@pytest.fixture
def stack(tmp_path: Path, valkey_url: str, postgres_url: str) -> Iterator[Stack]:
    """One partition in Dagster, and a webserver."""
    from dagster import DagsterInstance

    one = Stack(tmp_path, valkey_url, postgres_url)
    with DagsterInstance.from_config(str(one.home)) as instance:
        instance.add_dynamic_partitions("chain_files", [KEY])
    yield one.start("code-server", "webserver")
    one.kill()


@pytest.fixture
def maps(stack: Stack) -> Iterator[str]:
    """The address of a server of the maps, of which there is one."""
    folder = stack.layout.clusters / "as" / "Tea"
    folder.mkdir(parents=True)
    (folder / "map.html").write_text("<p>a map of tea</p>")
    server = MapServer(stack.layout.clusters, ("127.0.0.1", free_port()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(tmp_path: Path, stack: Stack, maps: str) -> Iterator[str]:
    """The address of an nginx with our file, without TLS."""
    port, folder = free_port(), tmp_path / "nginx"
    folder.mkdir()
    (folder / "passwords").write_text(f"{LOGIN[0]}:{{PLAIN}}{LOGIN[1]}\n")
    (folder / "tokens").write_text('"Bearer t0ken" 1;\n')
    text = re.sub(r"\n *ssl_certificate\S* .*", "", CONFIG.read_text())
    for ours, theirs in {
        "listen 443 ssl": f"listen 127.0.0.1:{port}",
        "127.0.0.1:3000": stack.url.removeprefix("http://"),
        "127.0.0.1:3001": maps.removeprefix("http://"),
        "/etc/nginx/reddit-assets.tokens": str(folder / "tokens"),
        "/etc/nginx/reddit-assets.htpasswd": str(folder / "passwords"),
    }.items():
        assert ours in text
        text = text.replace(ours, theirs)
    places = "".join(
        f"{name}_temp_path {folder / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder / 'pid'};\n"
        f"error_log {folder / 'error.log'};\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{text}\n}}\n"
    )
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_login_before_the_page_and_a_token_before_reports(stack: Stack, proxy: str) -> None:
    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{proxy}/server_info", auth=LOGIN).status_code == 200
        return False

    wait_for(answers, 30, "the proxy answers")
    # The page is refused without the login, and there with it
    assert httpx.get(f"{proxy}/assets").status_code == 401
    assert httpx.get(f"{proxy}/assets", auth=("ann", "wrong")).status_code == 401
    assert "<!doctype html>" in httpx.get(f"{proxy}/assets", auth=LOGIN).text.lower()
    assert httpx.post(f"{proxy}/graphql", json={"query": "{ version }"}).status_code == 401
    answer = httpx.post(f"{proxy}/graphql", json={"query": "{ version }"}, auth=LOGIN)
    assert answer.json()["data"]["version"]
    # So are the maps, whose links stay below their address
    assert httpx.get(f"{proxy}/maps/").status_code == 401
    link = re.search(r'href="([^"]+)"', httpx.get(f"{proxy}/maps/", auth=LOGIN).text)
    assert link is not None
    assert "a map of tea" in httpx.get(f"{proxy}/maps/{link[1]}", auth=LOGIN).text
    # A report is refused without the token, and with a wrong one; the entry stays
    result = Result("job-1", "embeddings", KEY, data_version="v1", source_version="s1")
    entry = OutboxEntry("1-1", result, uncertain=False)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        sink = RestSink(proxy, headers=headers)
        with pytest.raises(ReportingError, match="401"):
            sink.report([entry])
        sink.close()
    body = {"partition": KEY}
    report = f"{proxy}/report_asset_materialization/embeddings"
    assert httpx.post(report, json=body, auth=LOGIN).status_code == 401
    # The token does not open the page
    settings = Settings(dagster_url=proxy, dagster_token=SecretStr("t0ken"))
    assert httpx.get(f"{proxy}/assets", headers=settings.dagster_headers()).status_code == 401
    # A reporter with the token reports
    outbox = Outbox(stack.queues[Kind.EMBED], "looking")
    outbox.put([result])
    sink = RestSink(proxy, headers=settings.dagster_headers())
    reporter = Reporter(list(stack.queues.values()), sink, until_empty=True)
    reporter.start()
    reporter.join(60)
    assert len(outbox) == 0
    assert len(stack.events("embeddings", KEY)) == 1
    assert "t0ken" not in repr(settings)
