"""The request and configuration tables of jub0bs/cors (MIT), against the CORS layer.

The environment variable CONFORMANCE_VECTORS names a folder that holds `cors/jub0bs_requests.json` and
`cors/jub0bs_invalid_configs.json` (or the files themselves). The tables say which requests are preflights, which of
those succeed, and which CORS headers the response has.

Three things are told in other words here, and are compared by what they mean:

- Lists are compared as sets of names; the tables have them sorted, or echoed with all their blanks.
- Where the tables answer a preflight with `*`, this layer names what was asked for, and no more.
- `Vary` stands on responses to OPTIONS here as it does on all others. RFC 9110 9.3.7 has them not cached, and the
  tables leave it out; there are networks that cache them all the same.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from asgi_guard import CORSSettings, Guard, GuardSettings, LogSettings
from asgi_guard.asgi import ASGIApp
from asgi_guard.errors import ConfigError
from asgi_guard.middleware import CORSMiddleware
from tests.asgi import Echo, Exchange, call, http_scope

LISTS = {"access-control-allow-headers", "access-control-allow-methods", "access-control-expose-headers", "vary"}

KINDS = {"psl": "public_suffix", None: "out_of_bounds"}
"""Their words for what is wrong, where they are others than ours."""
DEVIATIONS = {
    # The table refuses the origin of a preflight for GET, whose GET it allows and of whose preflight for PUT it finds
    # the method wrong alone; another table has the same request succeed, as the Fetch standard does.
    ("outer Vary middleware", "fake preflight with CORS-safelisted method from allowed"),
}


def vectors(name: str) -> list[dict[str, Any]]:
    """A file of vectors; the test that wants it is skipped where there is none."""
    folder = os.environ.get("CONFORMANCE_VECTORS")
    if not folder:
        pytest.skip("CONFORMANCE_VECTORS names no folder of vectors")
    found = [path for path in (Path(folder) / name, Path(folder) / "cors" / name) if path.exists()]
    content: list[dict[str, Any]] = json.loads(found[0].read_text(encoding="utf-8"))
    return content


def options(cfg: dict[str, Any]) -> dict[str, Any]:
    """Their options, in this layer's names; no maximum age is said where theirs is 0."""
    return {
        "allow_origins": cfg.get("Origins", ()),
        "allow_methods": cfg.get("Methods", ()),
        "allow_headers": cfg.get("RequestHeaders", ()),
        "allow_credentials": cfg.get("Credentialed", False),
        "expose_headers": cfg.get("ResponseHeaders", ()),
        "max_age": cfg.get("MaxAgeInSeconds") or None,
        "unsafe_insecure_origins": cfg.get("DangerouslyTolerateInsecureOrigins", False),
    }


def guarded(group: dict[str, Any]) -> ASGIApp:
    """An app with their configuration around it. A table without any is a whole guard whose CORS is off."""
    vary = [(b"vary", value.encode()) for value in group["inner"]["headers"]["Vary"]]
    if group["cfg"] is None:
        return Guard(Echo(headers=vary), GuardSettings(cors=CORSSettings(), log=LogSettings(format="off")))
    return CORSMiddleware(Echo(headers=vary), **options(group["cfg"]), unsafe_debug=group.get("debug", False))


def names(lines: list[str]) -> set[str]:
    return {item.strip().lower() for line in lines for item in line.split(",")} - {""}


def wanted(group: dict[str, Any], case: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the CORS headers that the table asks for."""
    headers: dict[str, Any] = {name.lower(): value for name, value in case.get("wantRespHeaders", {}).items()}
    asked = {name.lower(): value for name, value in case.get("reqHeaders", {}).items()}
    outcome = case.get("wantOutcome")
    for name in ("methods", "headers"):
        if "*" in names(headers.get(f"access-control-allow-{name}", [])):
            request = "method" if name == "methods" else "headers"
            headers[f"access-control-allow-{name}"] = asked[f"access-control-request-{request}"]
    if outcome is None:
        headers["vary"] = headers.get("vary", []) + group["inner"]["headers"]["Vary"]
    found = {name: names(value) if name in LISTS else ", ".join(value) for name, value in headers.items()}
    if case["reqMethod"] == "OPTIONS":
        found.pop("vary", None)
    # In debug mode, the browser is to find for itself what fails, and it looks at successes only.
    told = group.get("debug", False) and outcome == "isPreflightAndFailsAfterCORSCheck"
    status = {None: group["inner"]["status"], "isPreflightAndSucceeds": 204}.get(outcome, 204 if told else 403)
    return status, found


def given(exchange: Exchange, method: str) -> tuple[int, dict[str, Any]]:
    """The status and the CORS headers that the layer gave."""
    found = {
        name: names([value]) if name in LISTS else value
        for name, value in exchange.headers.items()
        if name.startswith("access-control-") or (name == "vary" and method != "OPTIONS")
    }
    return exchange.status, found


async def test_requests() -> None:
    """Every request of the tables gets the verdict and the headers that they ask for, but for those listed above."""
    count, deviating = 0, set()
    for group in vectors("jub0bs_requests.json"):
        app = guarded(group)
        for case in group["cases"]:
            method = case["reqMethod"]
            lines = [
                (name.lower().encode(), value.encode())
                for name, values in case.get("reqHeaders", {}).items()
                for value in values
            ]
            exchange = await call(app, http_scope(method, "/", lines))
            if given(exchange, method) != wanted(group, case):
                deviating.add((group["desc"], case["desc"]))
            count += 1
    assert deviating == DEVIATIONS
    assert count == 119
    page = (Path(__file__).parents[2] / "docs" / "browser.md").read_text("utf-8").replace("\n", " ")
    for deviation in DEVIATIONS:
        assert f"*{': '.join(deviation)}*" in page, "each deviation is listed, with its reason"


def test_invalid_configurations() -> None:
    """Every configuration of the table is refused with its problems in order: the option, and what sort of fault."""
    kinds = {
        "UnacceptableOriginPatternError": "allow_origins",
        "IncompatibleOriginPatternError": "allow_origins",
        "UnacceptableMethodError": "allow_methods",
        "MaxAgeOutOfBoundsError": "max_age",
        "cfgerrors.IncompatibleWildcardResponseHeaderNameError": "expose_headers",
    }
    count = 0
    for config in vectors("jub0bs_invalid_configs.json"):
        expected = [
            (
                kinds.get(error["$type"]) or ("allow_headers" if error["Type"] == "request" else "expose_headers"),
                "wildcard" if "Wildcard" in error["$type"] else KINDS.get(error.get("Reason"), error.get("Reason")),
            )
            for error in config["want"]
        ]
        with pytest.raises(ConfigError) as caught:
            CORSMiddleware(Echo(), **options(config["cfg"]))
        assert [(problem.name, problem.kind) for problem in caught.value.problems] == expected, config["desc"]
        count += len(expected)
    assert count == 29
