"""The types of frameworks and servers, as their users' type checkers see them: `make check` is what proves it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, get_type_hints

import pytest
from asgiref.typing import ASGI3Application
from fastapi import FastAPI
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_guard import Guard, Trace, draining, propagation_headers, request_id, trace

if TYPE_CHECKING:
    import httpx
    import uvicorn
    from hypercorn.typing import ASGIFramework


async def by_hand(scope: dict[str, object], receive: object, send: object) -> None:
    """An app whose author took other types than ours."""


def test_any_framework_s_app_may_be_guarded() -> None:
    """Guard takes the app of each framework, and stands where its middleware does, without a cast."""
    within = FastAPI()
    within.add_middleware(Guard)
    Starlette(middleware=[Middleware(Guard)])
    litestar = Litestar(logging_config=None)  # else it would set up logging for all
    for guard in (Guard(FastAPI()), Guard(Starlette()), Guard(Quart("quart")), Guard(litestar), Guard(by_hand)):
        assert inspect.iscoroutinefunction(guard.__call__)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (request_id, str | None),
        (trace, Trace | None),
        (draining, asyncio.Event | None),
        (propagation_headers, dict[str, str]),
    ],
)
def test_what_is_found_out_may_be_injected(found: Callable[[], object], kind: object) -> None:
    """Frameworks that inject what a function gives, such as Litestar by its `Provide`, can read what that is."""
    assert get_type_hints(found) == {"return": kind}


def test_a_guard_may_be_given_to_any_server() -> None:
    """A guard is an app to servers and to clients of tests, and may take the place of Quart's, without a cast."""
    quart = Quart("quart")
    quart.asgi_app = Guard(quart.asgi_app)  # type: ignore[method-assign]  # as Quart's own documentation does
    to_asgiref: ASGI3Application = quart.asgi_app
    assert isinstance(to_asgiref, Guard)


if TYPE_CHECKING:

    def given(guard: Guard) -> tuple[uvicorn.Config, httpx.ASGITransport, ASGIFramework]:
        """What these take is looked at by the type checker alone."""
        return uvicorn.Config(guard), httpx.ASGITransport(guard), guard
