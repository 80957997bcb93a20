"""The service: FastAPI within, the guard around it. Everything about the guard but the check is in the environment.

DATABASE_URL=postgresql://... asgi-guard run service.main:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Annotated, Any

import asyncpg
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from asgi_guard import Guard, User, revoke

from .database import Payments, Probe

RELEASE = int(os.environ.get("SERVICE_RELEASE", "2"))
LOGIN_URL = os.environ.get("LOGIN_URL", "https://id.example.com/authorize")


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    """The pool belongs to this process's event loop: opened at its start, closed when the last request has ended."""
    url = os.environ["DATABASE_URL"]
    async with asyncpg.create_pool(
        url,
        min_size=5,  # there before the first request, and seen to answer before this process is ready
        max_size=20,  # and one for readiness; x replicas, surge included, stays below the database's max_connections
        timeout=5,
        command_timeout=10,
    ) as pool:
        with closing(Probe(url)) as probe:
            api.state.payments, api.state.probe = Payments(pool, RELEASE), probe
            yield


api = FastAPI(title="Payments", lifespan=lifespan, docs_url=None, redoc_url=None)


def current_user(request: Request) -> User:
    """The verified caller: the guard lets no one else through to paths that no row opens."""
    user: User = request.user
    return user


def payments_of(request: Request) -> Payments:
    payments: Payments = request.app.state.payments
    return payments


CurrentUser = Annotated[User, Depends(current_user)]
AllPayments = Annotated[Payments, Depends(payments_of)]


class NewPayment(BaseModel):
    cents: int = Field(gt=0, le=100_000_000)


@api.post("/payments", status_code=201)
async def pay(payment: NewPayment, user: CurrentUser, payments: AllPayments) -> dict[str, int]:
    return {"id": await payments.add(user.subject, payment.cents), "cents": payment.cents}


@api.get("/payments")
async def list_payments(user: CurrentUser, payments: AllPayments) -> dict[str, Any]:
    return {"payments": await payments.of(user.subject), "release": RELEASE}


@api.post("/login")
async def login() -> RedirectResponse:
    """Passwords are the issuer's business: whoever logs in is sent there."""
    return RedirectResponse(LOGIN_URL, status_code=303)


@api.post("/logout", status_code=204)
async def logout(request: Request) -> Response:
    """From here on the token is refused by every replica, though it has not expired."""
    await revoke(request.scope)
    return Response(status_code=204, headers={"clear-site-data": '"cookies"'})


async def postgres() -> None:
    """Asked by readiness, beside Redis and the issuer's keys, which the guard asks itself."""
    await api.state.probe.ask()


app = Guard(api, checks={"postgres": postgres})
