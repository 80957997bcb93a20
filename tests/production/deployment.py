"""The example's own files, as an orchestrator would use them: its environment, its jobs, its replicas, and load."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import yaml

from asgi_guard.testing import LocalIssuer
from tests.end_to_end.serving import ROOT, Served, free_port, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.production.postgres import Postgres
    from tests.stores.server import Server

EXAMPLE = ROOT / "examples" / "production"
MANIFESTS = sorted((EXAMPLE / "kubernetes").glob("*.yaml"))
HOST = "api.example.com"
APP = "https://app.example.com"
JOB = "payments-migrate-0002"
VIA_INGRESS = {"host": HOST, "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
"""What the ingress says of a request that came to it over https."""


def guard_env() -> dict[str, str]:
    """The variables of `guard.env`."""
    lines = (EXAMPLE / "guard.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def documents() -> Iterator[dict[str, Any]]:
    """Every document of the manifests."""
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text("utf-8"))


def manifest(kind: str, name: str) -> dict[str, Any]:
    """The manifest of that kind and name."""
    (found,) = (each for each in documents() if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def job_env() -> dict[str, str]:
    """The variables that the migration job's manifest sets itself."""
    (only,) = manifest("Job", JOB)["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in only["env"]}


def role(secret: str) -> str:
    """Who a Secret connects to the database as."""
    name = urlsplit(str(manifest("Secret", secret)["stringData"]["DATABASE_URL"])).username
    assert name
    return name


@dataclass
class Deployment:
    """A database, a store and an issuer, and what runs on them.

    Attributes:
        database: the database's URL, as jobs have it: the role that owns the tables.
        environment: the variables of a replica, whose role is the service's.
        jobs: the variables of a job.
        issuer: whose tokens are accepted.
    """

    database: str
    environment: dict[str, str]
    jobs: dict[str, str]
    issuer: LocalIssuer
    folder: Path
    stack: ExitStack
    _numbers: Iterator[int] = field(default_factory=count)

    def replica(self, release: int, **changes: str) -> Served:
        """Start a replica of a release, and wait until it is ready."""
        folder = self.folder / f"replica-{next(self._numbers)}"
        folder.mkdir()
        port = free_port()
        command = ("run", "service.main:app", "--app-dir", str(EXAMPLE), "--port", str(port), "--graceful", "25")
        environment = {**self.environment, "SERVICE_RELEASE": str(release), **changes}
        return self.stack.enter_context(serve(folder, *command, port=port, **environment))

    async def job(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a job: a module of Python with its arguments."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", *arguments),
            cwd=EXAMPLE,
            env={**os.environ, **self.jobs},
            stderr=subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> str:
        """Run a job to its end: what it said."""
        job = await self.job(*arguments)
        _, said = await job.communicate()
        assert job.returncode == 0, said.decode()
        return said.decode()

    async def query(self, statement: str) -> Any:
        async with connected(self.database) as connection:
            return await connection.fetchval(statement)

    def headers(self, subject: str, scopes: str = "payments:read payments:write", **claims: Any) -> dict[str, str]:
        """A request's headers, as they come from the ingress, with a token."""
        token = self.issuer.token(subject, scopes=scopes.split(), **{"lifetime": 720, **claims})
        return {**VIA_INGRESS, "authorization": f"Bearer {token}"}


@contextmanager
def deployment(postgres: Postgres, valkey: Server, folder: Path) -> Iterator[Deployment]:
    """An empty database, the store, and an issuer; everything that is started on them ends with the context."""
    name = "test_" + re.sub(r"\W", "_", folder.name.lower())
    owner, service = role("payments-migrations"), role("payments")
    asyncio.run(_create(postgres.url, name, owner))
    with ExitStack() as stack:
        issuer = stack.enter_context(LocalIssuer(audience="payments").serve())
        database = f"postgresql://{owner}@127.0.0.1:{postgres.port}/{name}"
        environment = {
            **guard_env(),
            # What differs from a real deployment: where the others are, and that a stop does not take long.
            "DATABASE_URL": f"postgresql://{service}@127.0.0.1:{postgres.port}/{name}",
            "ASGI_GUARD_STORE_URL": valkey.url,
            "ASGI_GUARD_STORE_PREFIX": f"{name}:",
            "ASGI_GUARD_STORE_TIMEOUT": "5",
            "ASGI_GUARD_AUTH_ISSUER": issuer.url,
            "ASGI_GUARD_PROXY_TRUSTED": "127.0.0.1",
            "ASGI_GUARD_METRICS_ALLOW": "127.0.0.1",
            "ASGI_GUARD_HEALTH_DRAIN_SECONDS": "1",
        }
        jobs = {**job_env(), "DATABASE_URL": database}
        yield Deployment(database, environment, jobs, issuer, folder, stack)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection to a database."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _create(url: str, name: str, owner: str) -> None:
    async with connected(url) as connection:
        await connection.execute(f"CREATE DATABASE {name} OWNER {owner}")


class Load:
    """Clients that pay and list, at every replica there is, and go elsewhere when they are told to.

    Attributes:
        failed: what was no answer, or no success.
        answered: successes, by replica.
        paid: the cents of all payments that were confirmed.
    """

    CLIENTS = 4

    def __init__(self, deployment: Deployment, users: int = 600) -> None:
        self._headers = [deployment.headers(f"user-{number}") for number in range(users)]
        self._turns = count()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.failed: list[str] = []
        self.answered: Counter[str] = Counter()
        self.paid = 0

    def at(self, replica: Served) -> None:
        """Send load there too."""
        self._tasks += [asyncio.create_task(self._client(replica.url)) for _ in range(self.CLIENTS)]

    async def more(self, replica: Served, answers: int = 60) -> None:
        """Wait for more answers from there."""
        wanted = self.answered[replica.url] + answers
        async with asyncio.timeout(60):
            while self.answered[replica.url] < wanted:
                if self.failed:
                    return
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """Let every client finish what it does."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _client(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            told = ""
            while not self._stopping and told != "close":
                told = await self._ask(client, url)

    async def _ask(self, client: httpx.AsyncClient, url: str) -> str:
        turn = next(self._turns)
        headers = self._headers[turn // 2 % len(self._headers)]
        cents = 100 + turn
        try:
            if turn % 2:
                answer = await client.get("/payments", headers=headers)
            else:
                answer = await client.post("/payments", headers=headers, json={"cents": cents})
        except httpx.HTTPError as error:
            self.failed.append(f"{url}: {error!r}")
            return "close"
        if answer.status_code not in (200, 201):
            self.failed.append(f"{url}: {answer.status_code} {answer.text}")
        else:
            self.answered[url] += 1
            self.paid += 0 if turn % 2 else cents
        return str(answer.headers.get("connection", ""))
