"""An app that nobody here wrote, behind `asgi-guard run`: Datasette on a SQLite file, over real sockets."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest

from asgi_guard.testing import LocalIssuer
from tests.end_to_end.serving import Served, free_port, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUTES = """[
    {"path": "/-/static/*", "auth": "none"},
    {"path": "/-/versions.json", "auth": "none", "limits": "3/minute by ip"},
    {"path": "/garden/*", "scopes": ["garden:read"]}
]"""
# Datasette's pages hold inline scripts and styles of their own.
CSP = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"


@pytest.fixture(scope="module")
def datasette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, LocalIssuer]]:
    folder: Path = tmp_path_factory.mktemp("datasette")
    with closing(sqlite3.connect(folder / "garden.db")) as database:
        database.execute("create table plants (name text, height integer)")
        database.executemany("insert into plants values (?, ?)", [("fern", 40), ("oak", 2000)])
        database.commit()
    source = f"from datasette.app import Datasette\napp = Datasette([{str(folder / 'garden.db')!r}]).app()\n"
    (folder / "plants_site.py").write_text(source)
    port = free_port()
    with (
        LocalIssuer(audience="garden").serve() as issuer,
        serve(
            folder,
            *("run", "plants_site:app", "--app-dir", str(folder), "--port", str(port)),
            port=port,
            ASGI_GUARD_AUTH_ISSUER=issuer.url,
            ASGI_GUARD_AUTH_AUDIENCE="garden",
            ASGI_GUARD_SECURITY_PRESET="page",
            ASGI_GUARD_SECURITY_CSP=CSP,
            ASGI_GUARD_ROUTES=ROUTES,
        ) as served,
    ):
        yield served, issuer
        assert served.stop() == 0
        assert "Traceback" not in served.errors()


def bearer(issuer: LocalIssuer, *scopes: str) -> dict[str, str]:
    return {"authorization": f"Bearer {issuer.token('gardener', scopes=scopes)}"}


def test_pages_are_served_with_the_guards_headers(datasette: tuple[Served, LocalIssuer]) -> None:
    """A page reaches the reader, with a request id, security headers and no server's name."""
    served, issuer = datasette
    answer = httpx.get(f"{served.url}/garden/plants", headers=bearer(issuer, "garden:read"))
    assert answer.status_code == 200
    assert "fern" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; script-src")
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers


def test_rows_and_static_files_are_served(datasette: tuple[Served, LocalIssuer]) -> None:
    """JSON and style sheets pass as the app sends them."""
    served, issuer = datasette
    rows = httpx.get(f"{served.url}/garden/plants.json?_shape=array", headers=bearer(issuer, "garden:read")).json()
    assert [row["name"] for row in rows] == ["fern", "oak"]
    style = httpx.get(f"{served.url}/-/static/app.css")
    assert style.status_code == 200
    assert style.headers["content-type"].startswith("text/css")


def test_strangers_are_refused(datasette: tuple[Served, LocalIssuer]) -> None:
    """Without a token there is a challenge, and without the scope a refusal that names it."""
    served, issuer = datasette
    stranger = httpx.get(f"{served.url}/garden/plants")
    assert stranger.status_code == 401
    assert stranger.headers["www-authenticate"] == "Bearer"
    assert stranger.headers["content-type"] == "application/problem+json"
    reader = httpx.get(f"{served.url}/garden/plants", headers=bearer(issuer))
    assert reader.status_code == 403
    assert 'scope="garden:read"' in reader.headers["www-authenticate"]
    assert httpx.get(f"{served.url}/", headers=bearer(issuer)).status_code == 200


def test_the_limit_holds(datasette: tuple[Served, LocalIssuer]) -> None:
    """Past the limit there is a refusal that says when to come back."""
    served, _ = datasette
    answers = [httpx.get(f"{served.url}/-/versions.json") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 22


def test_every_exchange_is_one_line_of_json(datasette: tuple[Served, LocalIssuer]) -> None:
    """Standard output holds the access log and nothing else, and each line can be found by its request id."""
    served, issuer = datasette
    answer = httpx.get(
        f"{served.url}/garden/plants.json?secret=hunter2%0aforged",
        headers={**bearer(issuer, "garden:read"), "x-request-id": "trace-me.1"},
    )
    assert answer.headers["x-request-id"] == "trace-me.1"
    line = served.line("trace-me.1")
    assert line["http.response.status_code"] == answer.status_code == 200
    assert line["http.response.body.size"] == len(answer.content)
    assert line["user.id"] == "gardener"
    assert line["url.query"] == "secret=[REDACTED]"
    assert b"hunter2" not in served.out.read_bytes()
