"""The maps' web server: the maps, and nothing else."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest

from reddit_assets.local.maps import MapServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MapServer]:
    base = tmp_path_factory.mktemp("maps")
    (base / "secret").mkdir()
    (base / "secret" / "map.html").write_text("secret")
    clusters = base / "clusters"
    for key in ("as/Tea", "日本/日本旅行", "flat"):
        (clusters / key).mkdir(parents=True)
        (clusters / key / "map.html").write_text(f"map of {key}", encoding="utf-8")
    (clusters / "as" / "Tea" / "map.png").write_bytes(b"PNG")
    (clusters / "as" / "Tea" / "map.posts.js").write_bytes(b"mapPosts();")
    (clusters / "as" / "Tea" / "clustered.parquet").write_bytes(b"secret")
    (clusters / "map.html").write_text("map of the corpus", encoding="utf-8")
    (clusters / "out").symlink_to(base / "secret")
    (clusters / "as" / "Link").mkdir()
    (clusters / "as" / "Link" / "map.html").symlink_to(base / "secret" / "map.html")
    (clusters / "as" / "Folder" / "map.html").mkdir(parents=True)
    with MapServer(clusters, ("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def ask(
    server: MapServer, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    # As it is, without a client's own tidying of the path.
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/as/Tea/map.html", "map of as/Tea", "text/html; charset=utf-8"),
        ("/as/Tea/map.html?v=1#x", "map of as/Tea", "text/html; charset=utf-8"),
        (
            "/%E6%97%A5%E6%9C%AC/%E6%97%A5%E6%9C%AC%E6%97%85%E8%A1%8C/map.html",
            "map of 日本/日本旅行",
            "text/html; charset=utf-8",
        ),
        ("/flat/map.html", "map of flat", "text/html; charset=utf-8"),
        ("/map.html", "map of the corpus", "text/html; charset=utf-8"),
        ("/as/Tea/map.png", "PNG", "image/png"),
        ("/as/Tea/map.posts.js", "mapPosts();", "text/javascript; charset=utf-8"),
    ],
)
def test_maps_and_pictures_are_handed_out(
    server: MapServer, path: str, body: str, kind: str
) -> None:
    answer, got = ask(server, path)
    assert (answer.status, got.decode()) == (200, body)
    assert answer.getheader("Content-Type") == kind
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
    # What the browser has already is not sent again.
    again, nothing = ask(server, path, If_None_Match=answer.getheader("ETag") or "")
    assert (again.status, nothing) == (304, b"")
    head, nothing = ask(server, path, "HEAD")
    assert (head.status, nothing, head.getheader("Content-Length")) == (200, b"", str(len(got)))


@pytest.mark.parametrize(
    "path",
    [
        "/as/Tea/clustered.parquet",
        "/as/Tea/",
        "/as",
        "/secret/map.html",
        "/../secret/map.html",
        "/as/../../secret/map.html",
        "/%2e%2e/secret/map.html",
        "/as/..%2f..%2f..%2fsecret/map.html",
        "/..%2fsecret/map.html",
        "//secret/map.html",
        "/as//map.html",
        "/as/Tea%00/map.html",
        "/out/map.html",
        "/as/Link/map.html",
        "/as/Folder/map.html",
        "/as/Tea/x/map.html",
        "/%ff%fe/map.html",
        "/" + "a" * 5_000 + "/map.html",
    ],
)
def test_nothing_else_is(server: MapServer, path: str) -> None:
    answer, body = ask(server, path)
    assert answer.status == 404
    assert b"secret" not in body


def test_a_foreign_name_is_refused(server: MapServer) -> None:
    # A web page that has its own name point here must not read the maps.
    assert ask(server, "/as/Tea/map.html", Host="evil.example:80")[0].status == 403
    assert ask(server, "/as/Tea/map.html", Host="localhost:3001")[0].status == 200
    assert ask(server, "/as/Tea/map.html", Host="[::1]:3001")[0].status == 200
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/as/Tea/map.html", method)[0].status == 501


def test_the_first_page_names_every_map(server: MapServer) -> None:
    answer, body = ask(server, "/")
    page = body.decode()
    assert answer.status == 200
    assert '<a href="as/Tea/map.html">as/Tea</a>' in page
    assert '<a href="map.html">' in page
    assert "日本/日本旅行" in page
    assert "clustered" not in page
