"""A process whose resident memory is read while it serves strangers: `python -m benchmarks.memory.process JSON`.

No two of its requests are alike: addresses, tokens, subjects, request ids and paths are made up anew for each. It
prints a line of JSON now and then: the requests so far, and its resident memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from base64 import urlsafe_b64encode
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from asgi_guard import Guard, MemoryStore
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.calls import discarded_output
from benchmarks.limits.memory import resident
from benchmarks.subjects import request

if TYPE_CHECKING:
    from asgi_guard.asgi import Message, Scope

LIMIT = "12/hour burst 1000 by ip; 12/hour burst 1000 by user"
"""Buckets that are not full again while this runs: the store fills up."""
LIFETIME = 24 * 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """What the process does.

    Attributes:
        requests: how many it serves, and
        samples: how often it tells its memory meanwhile.
        max_keys: how many buckets its store may hold.
    """

    requests: int
    samples: int
    max_keys: int

    def to_json(self) -> str:
        """As the command line has it."""
        return json.dumps(asdict(self))


def _encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).rstrip(b"=").decode()


class Strangers:
    """Makes requests, each of another client.

    Args:
        issuer: whose tokens half of them have: a new one each time. A quarter has none, and the others nonsense.
    """

    def __init__(self, issuer: LocalIssuer) -> None:
        key: Any = issuer.published[0].private
        assert isinstance(key, Ed25519PrivateKey)
        self._key = key
        self._header = _encoded(json.dumps({"alg": "EdDSA", "kid": issuer.published[0].kid}).encode())
        self._issuer = issuer
        self._random = random.Random(0)  # noqa: S311 - nothing is to be kept secret
        self._scope = request("")

    def _token(self) -> str:
        """Signed with less ado than by the issuer itself, for there are many."""
        now, chance = int(time.time()), self._random
        claims = {
            "iss": self._issuer.url, "aud": self._issuer.audience, "sub": f"{chance.getrandbits(64):x}",
            "jti": f"{chance.getrandbits(128):x}", "iat": now, "exp": now + LIFETIME,
        }  # fmt: skip
        signed = f"{self._header}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(self._key.sign(signed.encode()))}"

    def request(self) -> Scope:
        """Another one."""
        chance = self._random
        kind = chance.random()
        token = self._token() if kind < 0.5 else _encoded(chance.randbytes(60)) if kind < 0.75 else None
        octets = chance.randbytes(4)
        address = ".".join(map(str, octets)) if kind < 0.9 else f"2001:db8:{octets[:2].hex()}:{octets[2:].hex()}::1"
        path = f"/items/{chance.getrandbits(64):x}"
        replaced = (b"authorization", b"x-forwarded-for")
        headers = [line for line in self._scope["headers"] if line[0] not in replaced]
        headers.append((b"x-forwarded-for", address.encode()))
        headers.append((b"x-request-id", b"%x" % chance.getrandbits(128)))
        if token is not None:
            headers.append((b"authorization", b"Bearer " + token.encode()))
        query = b"q=%x" % chance.getrandbits(64)
        return {**self._scope, "headers": headers, "path": path, "raw_path": path.encode(), "query_string": query}


async def serve(plan: Plan, out: TextIO) -> None:
    """Serve them, and tell."""
    issuer = LocalIssuer(algorithm="EdDSA")
    settings = subjects.settings(issuer.url, issuer.audience)
    rate = settings.rate.model_copy(update={"limit": LIMIT})
    store = MemoryStore(max_keys=plan.max_keys)
    app = Guard(subjects.raw, settings.model_copy(update={"rate": rate}), store=store, http_client=issuer.client)
    strangers = Strangers(issuer)
    statuses: dict[int, int] = {}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            statuses[status] = statuses.get(status, 0) + 1

    every = plan.requests // plan.samples
    for number in range(every * plan.samples + 1):
        await app(strangers.request(), subjects.receive, send)
        if number % every == 0:
            said = {"requests": number, "resident": resident(), "keys": len(store), "statuses": statuses}
            print(json.dumps(said), file=out, flush=True)


def main(plan: Plan) -> None:
    """Serve, from the command line."""
    out = sys.stdout
    with discarded_output():
        asyncio.run(serve(plan, out))


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
