"""The Fetch standard's checks: what a browser asks first, and what it lets a page read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.cors import CORSOptions, CORSPolicy, obstacles
from asgi_guard.policy.fetch import BrowserVerdict, PageRequest, Reply, Step, judge, preflight_of, unsafe_names

APP = "https://app.example.com"
EVIL = "https://evil.example"


def reply(*lines: tuple[str, str], status: int = 200) -> Reply:
    return Reply(status, [(name.encode(), value.encode()) for name, value in lines])


def asked(method: str, *headers: tuple[str, str | None]) -> dict[bytes, bytes] | None:
    found = preflight_of(PageRequest(APP, method, headers))
    return None if found is None else dict(found)


@pytest.mark.parametrize(
    ("method", "headers", "names"),
    [
        ("GET", [], None),
        ("get", [], None),
        ("HEAD", [], None),
        ("POST", [("content-type", "text/plain")], None),
        ("POST", [("Content-Type", "Text/Plain; charset=utf-8")], None),
        ("POST", [("content-type", "multipart/form-data; boundary=x")], None),
        ("POST", [("content-type", "application/x-www-form-urlencoded")], None),
        ("POST", [("content-type", "text/plain ;charset=utf-8")], None),
        ("POST", [("content-type", "application/json")], b"content-type"),
        ("POST", [("content-type", None)], b"content-type"),
        ("POST", [("content-type", 'text/plain; charset="utf-8"')], b"content-type"),
        ("GET", [("accept", "text/html")], None),
        ("GET", [("accept", "text/html<")], b"accept"),
        ("GET", [("accept", "x" * 128)], None),
        ("GET", [("accept", "x" * 129)], b"accept"),
        ("GET", [("accept-language", "en-GB;q=0.5, *")], None),
        ("GET", [("content-language", "en-GB")], None),
        ("GET", [("content-language", "en_GB")], b"content-language"),
        ("GET", [("range", "bytes=0-")], None),
        ("GET", [("range", "bytes=0-9")], None),
        ("GET", [("range", "bytes=9-9")], None),
        ("GET", [("x-range", "bytes=0-9")], b"x-range"),
        ("GET", [("range", "bytes=-9")], b"range"),
        ("GET", [("x-b", "1"), ("Authorization", "x"), ("x-b", "2")], b"authorization,x-b"),
        ("GET", [("cookie", "a=b"), ("Sec-Fetch-Site", "x"), ("proxy-x", "1")], None),
        ("GET", [("accept", "\xe9" * 128)], None),
        ("GET", [("accept", "x" * 100), ("Accept", "x" * 26)], None),
        ("GET", [("accept", "x" * 100), ("Accept", "x" * 27)], b"accept"),
        ("GET", [("accept", None), ("accept", "x")], b"accept"),
        ("GET", [("accept", "x"), ("accept", None)], b"accept"),
        ("GET", [("content-type", "text/plain")] * 2, b"content-type"),
        ("GET", [("range", "bytes=9-0")], b"range"),
        ("GET", [("x-http-method", "get, Trace"), ("x-method-override", "track")], None),
        ("GET", [("X-HTTP-Method-Override", "connect")], None),
        ("GET", [("x-http-method-override", "put"), ("x-http-method", None)], b"x-http-method,x-http-method-override"),
    ],
)
def test_what_needs_a_preflight(method: str, headers: list[tuple[str, str | None]], names: bytes | None) -> None:
    """A browser asks first for methods and headers that no form could send, and names these only."""
    found = asked(method, *headers)
    assert (found is None) is (names is None)
    if found is not None:
        assert found[b"access-control-request-headers"] == names


@pytest.mark.parametrize(("method", "told"), [("put", b"PUT"), ("PATCH", b"PATCH"), ("patch", b"patch")])
def test_methods_are_asked_for_as_they_will_be_sent(method: str, told: bytes) -> None:
    """A browser upper-cases a handful of methods, and asks for the others as the script wrote them."""
    found = asked(method)
    assert found == {b"origin": APP.encode(), b"access-control-request-method": told}


ORIGIN, CREDENTIALS = ("access-control-allow-origin", APP), ("access-control-allow-credentials", "true")
ANY = ("access-control-allow-origin", "*")
PUT, ANY_METHOD = ("access-control-allow-methods", "PUT"), ("access-control-allow-methods", "*")


def named(*names: str) -> tuple[str, str]:
    return "access-control-allow-headers", ",".join(names)


@pytest.mark.parametrize(
    ("lines", "credentials", "step"),
    [
        ([], False, Step.ORIGIN),
        ([ORIGIN], False, None),
        ([ANY], False, None),
        ([("Access-Control-Allow-Origin", f"\t{APP} ")], False, None),
        ([ORIGIN, ORIGIN], False, Step.ORIGIN),
        ([("access-control-allow-origin", EVIL)], False, Step.ORIGIN),
        ([("access-control-allow-origin", APP.upper())], False, Step.ORIGIN),
        ([("access-control-allow-origin", f"{APP}/")], False, Step.ORIGIN),
        ([ORIGIN], True, Step.CREDENTIALS),
        ([ANY, CREDENTIALS], True, Step.CREDENTIALS),
        ([ORIGIN, ("access-control-allow-credentials", "True")], True, Step.CREDENTIALS),
        ([ORIGIN, CREDENTIALS], True, None),
    ],
)
def test_the_answer(lines: list[tuple[str, str]], credentials: bool, step: Step | None) -> None:
    """An answer may be read if it names the page's very origin, or anyone without cookies; it was sent either way."""
    verdict = judge(PageRequest(APP, credentials=credentials), None, reply(*lines))
    assert (verdict.readable, verdict.step, verdict.sent, verdict.preflighted) == (step is None, step, True, False)
    assert bool(verdict.detail) is (step is not None)


@pytest.mark.parametrize(
    ("preflight", "headers", "credentials", "step"),
    [
        (reply(ORIGIN, PUT), [], False, None),
        (reply(ORIGIN, PUT, status=299), [], False, None),
        (reply(ORIGIN, PUT, status=199), [], False, Step.PREFLIGHT_STATUS),
        (reply(ORIGIN, PUT, status=300), [], False, Step.PREFLIGHT_STATUS),
        (reply(ORIGIN, PUT, status=403), [], False, Step.PREFLIGHT_STATUS),
        (reply(PUT), [], False, Step.PREFLIGHT_ORIGIN),
        (reply(ORIGIN, PUT), [], True, Step.PREFLIGHT_CREDENTIALS),
        (reply(ORIGIN), [], False, Step.PREFLIGHT_METHOD),
        (reply(ORIGIN, ("access-control-allow-methods", "put")), [], False, Step.PREFLIGHT_METHOD),
        (reply(ORIGIN, ("access-control-allow-methods", "P T")), [], False, Step.PREFLIGHT_METHOD),
        (reply(ORIGIN, ANY_METHOD), [], False, None),
        (reply(ORIGIN, CREDENTIALS, ANY_METHOD), [], True, Step.PREFLIGHT_METHOD),
        (reply(ORIGIN, PUT), ["x-a"], False, Step.PREFLIGHT_HEADER),
        (reply(ORIGIN, PUT, named("x-b", "X-A")), ["x-a"], False, None),
        (reply(ORIGIN, PUT, named("x-b"), named("x-a")), ["x-a"], False, None),
        (reply(ORIGIN, PUT, named("*")), ["x-a"], False, None),
        (reply(ORIGIN, PUT, named("*")), ["authorization"], False, Step.PREFLIGHT_HEADER),
        (reply(ORIGIN, PUT, named("*", "authorization")), ["authorization", "x-a"], False, None),
        (reply(ORIGIN, CREDENTIALS, PUT, named("*")), ["x-a"], True, Step.PREFLIGHT_HEADER),
        (reply(ORIGIN, PUT, named("x a")), [], False, Step.PREFLIGHT_HEADER),
        (None, [], False, Step.PREFLIGHT_ORIGIN),
    ],
)
def test_the_preflight(preflight: Reply | None, headers: list[str], credentials: bool, step: Step | None) -> None:
    """A request is sent only after a preflight that names origin, method and every header."""
    request = PageRequest(APP, "put", tuple((name, None) for name in headers), credentials)
    verdict = judge(request, preflight, reply(ORIGIN, CREDENTIALS))
    assert (verdict.readable, verdict.sent, verdict.step) == (step is None, step is None, step)
    assert verdict.preflighted


def test_an_answer_that_is_for_the_browser_itself() -> None:
    """A 407 is between a browser and its proxy: no script reads it, whatever its headers say."""
    verdict = judge(PageRequest(APP), None, reply(ORIGIN, status=407))
    assert (verdict.readable, verdict.sent, verdict.step) == (False, True, Step.PROXY)


def test_methods_that_scripts_may_not_use() -> None:
    """A forbidden method is never sent, whatever the server says; a header that scripts cannot set is left out."""
    verdict = judge(PageRequest(APP, "trace"), reply(ANY), reply(ANY))
    assert (verdict.step, verdict.sent, verdict.preflighted) == (Step.METHOD_FORBIDDEN, False, False)
    verdict = judge(PageRequest(APP, "GET", (("Cookie", "a=b"), ("Accept", "x"))), None, reply(ANY))
    assert verdict == BrowserVerdict(readable=True, preflighted=False, sent=True, ignored=("Cookie",))


@pytest.mark.parametrize(
    ("exposed", "credentials", "told"),
    [
        ("X-Id, etag,*", False, ("x-id", "etag", "*")), ("X-Id, etag,*", True, ("x-id", "etag")),
        ("Content-Type, x-id", False, ("x-id",)), ("x-id, x y", False, ()),
    ],
)  # fmt: skip
def test_what_may_be_read_of_it(exposed: str, credentials: bool, told: tuple[str, ...]) -> None:
    """Headers that are named may be read beside the safelisted ones; a star is none where cookies go along."""
    lines = (ORIGIN, CREDENTIALS, ("access-control-expose-headers", exposed))
    verdict = judge(PageRequest(APP, credentials=credentials), None, reply(*lines))
    assert (verdict.readable, verdict.exposed) == (True, told)


names = st.sampled_from(["x-a", "x-b", "authorization", "content-type", "cookie"])


@given(
    st.sampled_from([APP, EVIL, "https://a.example.org:8443", "null"]),
    st.sampled_from(["GET", "post", "PUT", "patch", "PATCH", "TRACE", "OPTIONS"]),
    st.lists(names, max_size=3),
    st.booleans(),
    st.fixed_dictionaries(
        {
            "allow_origins": st.sampled_from([[APP], ["https://*.example.org:*"], ["*"]]),
            "allow_methods": st.sampled_from([[], ["PUT"], ["patch", "OPTIONS"], ["*"]]),
            "allow_headers": st.sampled_from([[], ["x-a"], ["*"], ["*", "Authorization"]]),
            "allow_credentials": st.booleans(),
            "unsafe_debug": st.booleans(),
        }
    ),
)
@example(APP, "PUT", ["x-a"], True, {"allow_origins": [APP], "allow_methods": ["PUT"], "allow_headers": ["x-a"]})
@example(APP, "GET", [], True, {"allow_origins": [APP], "allow_credentials": True})
def test_the_browser_agrees_with_the_configuration(
    origin: str, method: str, headers: list[str], credentials: bool, options: dict[str, object]
) -> None:
    """What a policy answers is readable in a browser exactly where no option stands in the way."""
    if options["allow_origins"] == ["*"]:
        options = {**options, "allow_credentials": False}
    policy = CORSPolicy.of(CORSOptions(**options))  # type: ignore[arg-type]  # mypy takes every value for that of every argument
    request = PageRequest(origin, method, tuple((name, None) for name in headers), credentials)
    sent = preflight_of(request)
    preflight = None
    if sent is not None:
        lines = dict(sent)
        wanted = lines.get(b"access-control-request-headers")
        given = policy.preflight(origin.encode(), lines[b"access-control-request-method"], [wanted] if wanted else [])
        preflight = Reply(403) if given is None else Reply(204, given)
    verdict = judge(request, preflight, Reply(200, policy.actual(origin.encode()) or ()))
    found = obstacles(policy, origin.encode(), method.encode(), unsafe_names(request.headers), credentials=credentials)
    assert verdict.readable is (not found)


def test_every_obstacle_is_told() -> None:
    """All options that stand in the way are told at once, each with what it is to say."""
    policy = CORSPolicy.of(CORSOptions(allow_origins=[APP], allow_headers=["x-a"]))
    found = obstacles(policy, EVIL.encode(), b"put", ["x-a", "x-b", "x-c"], credentials=True)
    assert [(fault.name, fault.message) for fault in found] == [
        ("allow_origins", f"add {EVIL}"),
        ("allow_credentials", "write true, so that cookies may go along"),
        ("allow_methods", "add PUT"),
        ("allow_headers", "add x-b, x-c"),
    ]
    more = ["allow_credentials", "allow_methods", "allow_headers"]
    for method, names, cookies, others in ((b"GET", (), False, []), (b"PUT", ["x-a"], True, more)):
        (nobody, *rest) = obstacles(None, APP.encode(), method, names, credentials=cookies)
        assert (nobody.name, nobody.message) == ("allow_origins", f"it is empty, so no page may call: write {APP}")
        assert [fault.name for fault in rest] == others
    for configured, cookies in ((None, False), (policy, False), (policy, True)):
        (opaque, *_) = obstacles(configured, b"null", b"GET", (), credentials=cookies)
        assert (opaque.name, "add null" in opaque.message) == ("allow_origins", False)
        assert ("'*'" in opaque.message) is not cookies
    (lower,) = obstacles(CORSPolicy.of(CORSOptions(allow_origins=[APP])), APP.encode(), b"patch", (), credentials=False)
    assert lower.message == "add patch, or have the page write PATCH, for it is sent as written"
    (star, *_) = obstacles(CORSPolicy.of(CORSOptions(allow_origins=["*"])), APP.encode(), b"GET", (), credentials=True)
    assert "in the place of '*'" in star.message
