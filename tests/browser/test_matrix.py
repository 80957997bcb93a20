"""`asgi-guard explain --origin` and Chromium agree, cell by cell: what is asked first, sent, and read."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import CORSSettings, Guard, GuardSettings, LogSettings
from asgi_guard.cli.browsing import seen_by_browser
from asgi_guard.policy.cors_names import SAFELISTED_RESPONSE_HEADERS
from asgi_guard.policy.fetch import PageRequest

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from tests.browser.pages import Visits
    from tests.browser.serving import Exchanged, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

NAMED, BELOW, STRANGER, OPAQUE = "app.localhost", "a.shop.localhost", "evil.localhost", "opaque.localhost"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "off": {},
    "plain": {"allow_origins": (NAMED,)},
    "some": {
        "allow_origins": (NAMED, "*.shop.localhost"),
        "allow_methods": ("PUT", "patch"),
        "allow_headers": ("x-a", "Content-Type"),
        "expose_headers": ("X-Total",),
        "max_age": 600,
    },
    "credentials": {
        "allow_origins": (NAMED, "*.shop.localhost"),
        "allow_methods": ("*",),
        "allow_headers": ("*",),
        "allow_credentials": True,
        "expose_headers": ("ETag",),
        "preflight_status": 200,
    },
    "anyone": {"allow_origins": ("*",), "allow_methods": ("*",), "allow_headers": ("*",), "expose_headers": ("*",)},
    "debug": {
        "allow_origins": (NAMED,),
        "allow_methods": ("PATCH",),
        "allow_headers": ("x-a",),
        "allow_credentials": True,
        "unsafe_debug": True,
    },
}
READABLE = {"plain": 2, "some": 2 * 6, "credentials": 2 * 2 * 9, "anyone": 4 * 8, "debug": 2 * 4}
"""In how many of its 80 cells a configuration lets the page read."""
ORIGINS = (NAMED, BELOW, STRANGER, OPAQUE)
ASKED: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("GET", ()),
    ("GET", (("x-a", "1"), ("Accept", "text/html"))),
    ("get", (("Authorization", "Bearer x"), ("x-a", "1"))),
    ("POST", (("content-type", "text/plain;charset=utf-8"), ("Cookie", "a=b"))),
    ("POST", (("content-type", "application/json"),)),
    ("put", ()),
    ("PUT", (("x-b", "1"), ("X-A", "2"))),
    ("patch", ()),
    ("PATCH", (("Sec-Purpose", "x"),)),
    ("TRACE", ()),
)


@dataclass(frozen=True)
class Cell:
    """One request of one page to one configuration."""

    configuration: str
    page: str
    method: str
    headers: tuple[tuple[str, str], ...]
    credentials: bool

    @property
    def path(self) -> str:
        """A path of its own, so that no preflight is remembered from another cell."""
        asked = ASKED.index((self.method, self.headers))
        return f"/{ORIGINS.index(self.page)}/{asked}/{self.credentials:d}"

    def options(self, origin: str) -> dict[str, Any]:
        credentials = "include" if self.credentials else "omit"
        headers = dict(self.headers)
        return {"url": origin + self.path, "method": self.method, "headers": headers, "credentials": credentials}


CELLS = [
    Cell(configuration, page, method, headers, credentials)
    for configuration, page, (method, headers), credentials in product(CONFIGURATIONS, ORIGINS, ASKED, (False, True))
]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"etag", b'"1"'), (b"x-total", b"7"), (b"x-hidden", b"1"), (b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"told"})


def settings(sites: Sites, configuration: str) -> GuardSettings:
    """The configuration, with the port at which the pages happen to be."""
    options = dict(CONFIGURATIONS[configuration])
    names = options.get("allow_origins", ())
    options["allow_origins"] = tuple(name if name == "*" else f"http://{name}:{sites.port}" for name in names)
    return GuardSettings(cors=CORSSettings(**options), log=LogSettings(format="off"))


def verdicts(guards: dict[str, Guard], cells: list[Cell], origin: str) -> list[dict[str, Any]]:
    """What `explain` says of each cell."""
    said = []
    for cell in cells:
        guard = guards[cell.configuration]
        request = PageRequest(origin, cell.method, cell.headers, cell.credentials)
        said.append(seen_by_browser(guard.settings, guard.layers, request, cell.path))
    return said


def disagreement(cell: Cell, said: dict[str, Any], answer: dict[str, Any], found: list[Exchanged]) -> list[Any]:
    """What the browser did otherwise than `explain` says; nothing if it did not."""
    actual = [each for each in found if "access-control-request-method" not in each.headers]
    told = (said["readable"], said["preflight"] != "not needed", said["sent"])
    done = (answer.get("text") == "told", len(found) > len(actual), bool(actual))
    if told != done:
        return [cell, said, answer, found]
    if actual and {name for name, _ in cell.headers if name.lower() not in actual[0].headers} != set(said["ignored"]):
        return [cell, said, actual]
    if not said["readable"]:
        return []
    sent = {name for name, _ in actual[0].answered} - SAFELISTED_RESPONSE_HEADERS
    shown = set(answer["names"]) - SAFELISTED_RESPONSE_HEADERS
    exposed = sent if "*" in said["exposed"] else sent & set(said["exposed"])
    return [] if shown == exposed else [cell, said, answer]


async def test_every_cell(sites: Sites, visits: Visits) -> None:
    """In each cell the browser does what `explain` says: asks first, sends, lets read, shows headers, or does not."""
    guards = {name: Guard(app, settings(sites, name)) for name in CONFIGURATIONS}
    apis = {name: sites.at(f"{name}.api.localhost", guard) for name, guard in guards.items()}
    read: Counter[str] = Counter()
    for page in ORIGINS:
        origin, path = (sites.at(page).origin, "/") if page != OPAQUE else ("null", "/sandbox")
        visit = await visits.at(sites.at(page).origin + path)
        cells = [cell for cell in CELLS if cell.page == page]
        answers = await visit.fetch_all([cell.options(apis[cell.configuration].origin) for cell in cells])
        read.update(cell.configuration for cell, answer in zip(cells, answers, strict=True) if "text" in answer)
        said = await asyncio.to_thread(verdicts, guards, cells, origin)
        pairs = zip(cells, said, answers, strict=True)
        found = [disagreement(*pair, apis[pair[0].configuration].asked(pair[0].path)) for pair in pairs]
        assert not any(found), "\n".join(str(each) for each in found if each)
    assert read == READABLE
