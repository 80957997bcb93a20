"""The Fetch standard's checks as `policy/fetch.py` has them, and Chromium: of servers that answer anything at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard.policy.cors_names import SAFELISTED_RESPONSE_HEADERS
from asgi_guard.policy.fetch import PageRequest, Reply, judge, preflight_of

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from tests.browser.pages import Visits
    from tests.browser.serving import Exchanged, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

PAGE = "app.localhost"
ORIGIN = "ORIGIN"
"""Stands in the tables for the page's origin, which has another port each time."""
Lines = tuple[tuple[str, str], ...]

SAME: Lines = (("access-control-allow-origin", ORIGIN),)
ANY: Lines = (("access-control-allow-origin", "*"),)
COOKIES: Lines = (("access-control-allow-credentials", "true"),)


def methods(value: str) -> Lines:
    return (("access-control-allow-methods", value),)


def headers(*values: str) -> Lines:
    return tuple(("access-control-allow-headers", value) for value in values)


def exposed(*values: str) -> Lines:
    return tuple(("access-control-expose-headers", value) for value in values)


@dataclass(frozen=True)
class Case:
    """What a page asks for, and what the server answers."""

    lines: Lines = ()
    method: str = "GET"
    names: tuple[str, ...] = ()
    credentials: bool = False
    preflight: Lines = ()
    preflight_status: int = 204
    status: int = 200

    def replies(self, origin: str) -> tuple[Reply, Reply]:
        """To the preflight and to the request itself."""
        preflight = Reply(self.preflight_status, _written(self.preflight, origin))
        return preflight, Reply(self.status, (*_written(self.lines, origin), *HIDDEN))


HIDDEN = ((b"x-a", b"1"), (b"x-b", b"2"), (b"content-length", b"4"))


def _written(lines: Lines, origin: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.replace(ORIGIN, origin).encode("latin-1")) for name, value in lines]


ANSWERS = [
    Case(lines, credentials=credentials)
    for credentials in (False, True)
    for lines in (
        (),
        SAME,
        ANY,
        SAME + COOKIES,
        ANY + COOKIES,
        SAME + SAME + COOKIES,
        ANY + SAME + COOKIES,
        (("access-control-allow-origin", "ORIGIN/"), *COOKIES),
        (("access-control-allow-origin", "ORIGIN, ORIGIN"), *COOKIES),
        (("access-control-allow-origin", "http://other.localhost"), *COOKIES),
        (("access-control-allow-origin", "HTTP://app.localhost"), *COOKIES),
        (("access-control-allow-origin", "null"), *COOKIES),
        (("access-control-allow-origin", ""), *COOKIES),
        (("access-control-allow-origin", "*, *"), *COOKIES),
        (("Access-Control-Allow-Origin", ORIGIN), ("Access-Control-Allow-Credentials", "true")),
        (*SAME, ("access-control-allow-credentials", "True")),
        (*SAME, ("access-control-allow-credentials", "1")),
        SAME + COOKIES + COOKIES,
    )
]
STATUSES = [Case(SAME, status=status) for status in (201, 299, 400, 401, 403, 404, 405, 407, 429, 500, 503, 599)]
EXPOSED = [
    Case(SAME + COOKIES + lines, credentials=credentials)
    for credentials in (False, True)
    for lines in (
        exposed("X-A"),
        exposed("x-a, x-b"),
        exposed("x-a", "x-b"),
        exposed(",, x-a ,\t,"),
        exposed("x-a x-b"),
        exposed("x-a, x b"),
        exposed("*"),
        exposed("x-a, *"),
        exposed("x-a;"),
        exposed(""),
        exposed('"x-a"'),
    )
]
PREFLIGHTS = [
    Case(SAME + COOKIES, method, names, credentials, lines, status)
    for credentials in (False, True)
    for method, names, lines, status in (
        ("PUT", (), SAME + COOKIES + methods("PUT"), 204),
        ("PUT", (), SAME + COOKIES + methods("PUT"), 200),
        ("PUT", (), SAME + COOKIES + methods("PUT"), 299),
        ("PUT", (), SAME + COOKIES + methods("PUT"), 302),
        ("PUT", (), SAME + COOKIES + methods("PUT"), 308),
        ("PUT", (), SAME + COOKIES + methods("PUT"), 403),
        ("PUT", (), SAME + COOKIES + methods("PUT"), 500),
        ("PUT", (), methods("PUT"), 204),
        ("PUT", (), SAME + methods("PUT"), 204),
        ("PUT", (), ANY + methods("PUT"), 204),
        ("PUT", (), SAME + COOKIES, 204),
        ("PUT", (), SAME + COOKIES + methods(""), 204),
        ("PUT", (), SAME + COOKIES + methods("put"), 204),
        ("put", (), SAME + COOKIES + methods("put"), 204),
        ("put", (), SAME + COOKIES + methods("PUT"), 204),
        ("patch", (), SAME + COOKIES + methods("PATCH"), 204),
        ("patch", (), SAME + COOKIES + methods("patch"), 204),
        ("PATCH", (), SAME + COOKIES + methods("patch"), 204),
        ("PUT", (), SAME + COOKIES + methods("PUT, P T"), 204),
        ("PUT", (), SAME + COOKIES + methods("GET,, PUT ,"), 204),
        ("PUT", (), SAME + COOKIES + methods("GET") + methods("PUT"), 204),
        ("PUT", (), SAME + COOKIES + methods("*"), 204),
        ("PUT", (), SAME + COOKIES + methods("GET, *"), 204),
        ("PUT", (), SAME + COOKIES + methods("PUT;"), 204),
        ("OPTIONS", (), SAME + COOKIES + methods("GET"), 204),
        ("GET", ("x-a",), SAME + COOKIES + methods("POST") + headers("x-a"), 204),
        ("GET", ("x-a",), SAME + COOKIES + methods("P T") + headers("x-a"), 204),
        ("GET", ("x-a",), SAME + COOKIES + headers("X-A"), 204),
        ("GET", ("X-A", "x-b"), SAME + COOKIES + headers("x-a"), 204),
        ("GET", ("x-a", "x-b"), SAME + COOKIES + headers("x-b", "x-a"), 204),
        ("GET", ("x-a", "x-b"), SAME + COOKIES + headers("x-b, , x-a,"), 204),
        ("GET", ("x-a",), SAME + COOKIES + headers("*"), 204),
        ("GET", ("x-a",), SAME + COOKIES + headers("x-b, *"), 204),
        ("GET", ("authorization", "x-a"), SAME + COOKIES + headers("*, Authorization"), 204),
        ("GET", ("x-a",), SAME + COOKIES + headers("x-a, x b"), 204),
        ("GET", ("x-a",), SAME + COOKIES + headers("x a"), 204),
        ("PUT", (), SAME + COOKIES + methods("PUT") + headers("x b"), 204),
        ("GET", ("x-a",), SAME + COOKIES + headers('"x-a"'), 204),
        ("POST", ("content-type",), SAME + COOKIES + headers("content-type"), 204),
        ("POST", ("content-type",), SAME + COOKIES, 204),
    )
]
# Chromium takes `*` for `authorization` too, which the standard wants named, and other browsers do.
LENIENT = [Case(SAME + COOKIES, "GET", ("authorization",), False, SAME + COOKIES + headers("*"))]
CASES = ANSWERS + STATUSES + EXPOSED + PREFLIGHTS + LENIENT

VALUES = [
    ("accept", "text/html"),
    ("Accept", "text/html;q=0.5, */*"),
    ("accept", "text/<html"),
    ("accept", 'a"b'),
    ("accept", "a(b"),
    ("accept", "a:b"),
    ("accept", "a\tb"),
    ("accept", "a\x7fb"),
    ("accept", "a\xe9b"),
    ("accept", "x" * 128),
    ("accept", "x" * 129),
    ("accept", "\xe9" * 65),
    ("accept-language", "en-GB;q=0.5, *"),
    ("accept-language", "en_GB"),
    ("accept-language", "en\tde"),
    ("content-language", "de"),
    ("content-language", "d\xe9"),
    ("content-type", "text/plain"),
    ("content-type", "TEXT/PLAIN ; charset=utf-8"),
    ("content-type", "text/plain, text/plain"),
    ("content-type", "text/plain;"),
    ("content-type", "text/plain; a"),
    ("content-type", 'text/plain; a="b"'),
    ("content-type", "multipart/form-data; boundary=x"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "application/json"),
    ("content-type", "application/csp-report"),
    ("content-type", "text"),
    ("content-type", ""),
    ("content-type", "text/ plain"),
    ("content-type", "text/plain charset"),
    ("content-type", "/"),
    ("range", "bytes=0-"),
    ("range", "bytes=0-9"),
    ("range", "bytes=9-0"),
    ("range", "bytes=-9"),
    ("range", "bytes=0-1,3-4"),
    ("range", "bytes= 0-9"),
    ("range", "Bytes=0-9"),
    ("range", "items=0-9"),
    ("if-range", "x"),
    ("authorization", "x"),
    ("x-requested-with", "XMLHttpRequest"),
    ("if-none-match", "x"),
    ("cache-control", "no-store"),
    ("priority", "u=1"),
    ("last-event-id", "1"),
    ("dnt", "1"),
    ("date", "x"),
    ("via", "x"),
    ("te", "x"),
    ("set-cookie", "a=b"),
    ("cookie2", "a=b"),
    ("origin", "x"),
    ("referer", "x"),
    ("sec-x", "x"),
    ("proxy-x", "x"),
    ("x-http-method", "TRACE"),
    ("x-http-method-override", "put"),
    ("x-http-method-override", "GET,trace "),
    ("x-method-override", "TRACK"),
    ("access-control-request-method", "PUT"),
    ("access-control-request-private-network", "true"),
    ("access-control-allow-origin", "x"),
    ("upgrade-insecure-requests", "1"),
]
# What Chromium sends without asking, or in the case of `user-agent` not at all, and the standard has it ask for.
LENIENT_VALUES = [
    ("user-agent", "x"),
    ("save-data", "on"),
    ("device-memory", "1"),
    ("dpr", "1"),
    ("downlink", "1"),
    ("rtt", "1"),
    ("viewport-width", "1"),
]
REPEATED = [
    [("accept", "x" * 100), ("accept", "x" * 27)],
    [("accept", "x" * 128), ("Accept", "x" * 128)],
    [("accept", "x" * 128)] * 9,
    [("accept", "x" * 128), ("accept-language", "y" * 128), ("content-language", "z" * 128)],
    [("content-type", "text/plain"), ("content-type", "text/plain")],
    [("content-type", "text/plain;a"), ("content-type", "text/html")],
    [("range", "bytes=0-"), ("range", "bytes=0-")],
    [("x-b", "1"), ("X-A", "1"), ("x-b", "2"), ("x-c", "1")],
]

SENT = [[each] for each in VALUES + LENIENT_VALUES] + REPEATED


class Anything:
    """An app that answers each path as a case says."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        preflight, actual = CASES[int(scope["path"][1:])].replies(self.origin)
        reply = preflight if scope["method"] == "OPTIONS" and _asks(scope) else actual
        await send({"type": "http.response.start", "status": reply.status, "headers": list(reply.headers)})
        await send({"type": "http.response.body", "body": b"told" if reply is actual else b""})


def _asks(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])


def _disagreement(case: Case, origin: str, answer: dict[str, Any], found: list[Exchanged]) -> str:
    """What the browser did otherwise than was judged; nothing if it did not."""
    request = PageRequest(origin, case.method, tuple((name, "1") for name in case.names), case.credentials)
    preflight, actual = case.replies(origin)
    verdict = judge(request, preflight, actual)
    first = [each for each in found if "access-control-request-method" in each.headers]
    done = (answer.get("text") == "told", bool(first), len(found) > len(first))
    judged = (verdict.readable, verdict.preflighted, verdict.sent)
    if case in LENIENT and done == (True, True, True):
        return "" if judged == (False, True, False) else f"{case}: {verdict}"
    if judged != done:
        return f"{case}: {verdict}, but readable, preflighted, sent are {done}: {answer}"
    if not verdict.readable:
        return ""
    sent = {name.decode().lower() for name, _ in actual.headers} - SAFELISTED_RESPONSE_HEADERS
    told = sent if "*" in verdict.exposed else sent & set(verdict.exposed)
    shown = set(answer["names"]) - SAFELISTED_RESPONSE_HEADERS
    return "" if told == shown else f"{case}: {verdict}, but it shows {shown}"


async def test_every_answer(sites: Sites, visits: Visits) -> None:
    """Whatever a server answers, the browser does what `judge` says, or in a known case what is less strict."""
    page = sites.at(PAGE)
    api = sites.at("anything.localhost", Anything(page.origin))
    visit = await visits.at(page.origin)
    asked = [
        {
            "url": f"{api.origin}/{number}",
            "method": case.method,
            "headers": dict.fromkeys(case.names, "1"),
            "credentials": "include" if case.credentials else "omit",
        }
        for number, case in enumerate(CASES)
    ]
    answers = await visit.fetch_all(asked)
    found = [
        _disagreement(case, page.origin, answers[number], api.asked(f"/{number}")) for number, case in enumerate(CASES)
    ]
    assert not any(found), "\n".join(filter(None, found))


async def test_what_needs_a_preflight(sites: Sites, visits: Visits) -> None:
    """The browser asks first for exactly the headers that `preflight_of` names, but for known ones that it may send."""
    page = sites.at(PAGE)
    api = sites.at("values.localhost", Anything(page.origin))
    visit = await visits.at(page.origin)
    await visit.fetch_all(
        [{"url": f"{api.origin}/{number}", "method": "POST", "headers": sent} for number, sent in enumerate(SENT)]
    )
    wrong = []
    for number, sent in enumerate(SENT):
        expected = preflight_of(PageRequest(page.origin, "POST", tuple(sent)))
        first = api.asked(f"/{number}")[0]
        asked = first.headers.get("access-control-request-headers")
        told = None if expected is None else dict(expected).get(b"access-control-request-headers", b"").decode()
        if told != asked and not (asked is None and sent[0] in LENIENT_VALUES):
            wrong.append(f"{sent}: {told} was told, {asked} is asked for")
    assert not wrong, "\n".join(wrong)
