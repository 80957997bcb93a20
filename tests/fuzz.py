"""Throws made-up Authorization headers at a guarded app: none may be let in, and none may be answered with 5xx.

    python -m tests.fuzz [COUNT] [SEED]

`make fuzz` runs a million of them, which takes some minutes; the suite runs a few thousand.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from base64 import urlsafe_b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from asgi_guard import AuthSettings, Guard, GuardSettings, LogSettings
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, get

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = 1_000_000
STEP = 1000
ODD = (
    "", "null", "true", "[]", "{}", '{"alg":"none"}', "\ufeff{}", '{"a":1,"a":2}', "NaN", "-Infinity", "1e999",
    '"\\ud800"',
    "[" * 40, "9" * 400, '{"alg":["RS256"]}', '{"alg":"nOnE"}', '{"crit":["b64"],"b64":false}',
)  # fmt: skip
ALGORITHMS = ("none", "None", "HS256", "HS512", "RS256", "RS512", "PS256", "ES256", "EdDSA", "", "rs256", None, 5)

UNACCEPTABLE: tuple[dict[str, Any], ...] = (
    {"exp": "9"}, {"exp": True}, {"exp": None}, {"exp": 0}, {"exp": 1e300}, {"nbf": 1e11}, {"iat": 1e11},
    {"aud": "other"}, {"aud": None}, {"aud": [[]]}, {"iss": "https://evil.test"}, {"sub": 5}, {"sub": ""}, {"jti": []},
    {"cnf": {}}, {"scope": 5},
)  # fmt: skip


def segment(value: bytes | str) -> str:
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Fuzzer:
    """Makes headers, from nonsense to what is nearly a token.

    Args:
        seed: makes the same headers again.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable is the point
        self.issuer = LocalIssuer(algorithm="ES256")
        self._valid = self.issuer.token()
        self._makers: tuple[Callable[[], str], ...] = (
            self._bytes, self._changed, self._cut, self._joined, self._header, self._claims, self._odd, self._signed,
        )  # fmt: skip

    def header(self) -> bytes:
        """One Authorization value, which no guard may accept."""
        chosen = self._random
        token = chosen.choice(self._makers)()
        scheme = chosen.choice(
            ("Bearer ", "Bearer ", "Bearer ", "bearer ", "Bearer  ", "Bearer\t", "", "Basic ", "Bearer,")
        )
        return (scheme + token).encode("utf-8", "surrogatepass")

    def _bytes(self) -> str:
        return "".join(
            chr(self._random.choice((self._random.randrange(256), self._random.randrange(0xD7FF))))
            for _ in range(self._random.randrange(80))
        )

    def _changed(self) -> str:
        """A valid token with some characters of its own alphabet changed."""
        text = list(self._valid)
        for _ in range(self._random.choice((1, 1, 2, 5))):
            at = self._random.randrange(len(text))
            text[at] = self._random.choice([c for c in "ABCabc012-_.=+/ " if c != text[at]])
        return "".join(text) if "".join(text) != self._valid else ""

    def _cut(self) -> str:
        """A part of a valid token, or more than one."""
        at = self._random.randrange(len(self._valid))
        return self._random.choice(
            (self._valid[:at], self._valid[at + 1 :], self._valid + self._valid[at:], self._valid + "=" * 3)
        )

    def _joined(self) -> str:
        parts = [*self._valid.split("."), "", "e30", self._odd()]
        return ".".join(self._random.choice(parts) for _ in range(self._random.choice((1, 2, 3, 3, 3, 4, 5)))) + "."

    def _header(self) -> str:
        """The claims of a valid token under another header."""
        _, claims, signature = self._valid.split(".")
        members: dict[str, Any] = {
            "alg": self._random.choice(ALGORITHMS),
            "kid": self._random.choice(("", "x" * 300, None, 7)),
        }
        members |= self._random.choice(
            ({}, {"typ": 1}, {"crit": []}, {"zip": "DEF"}, {"jku": "https://evil.test"}, {"b64": False})
        )
        return ".".join((segment(json.dumps(members)), claims, self._random.choice((signature, "", "AA"))))

    def _claims(self) -> str:
        """Other claims under a valid token's header and signature."""
        header, _, signature = self._valid.split(".")
        return ".".join((header, segment(self._random.choice(ODD)), signature))

    def _odd(self) -> str:
        return ".".join(segment(self._random.choice(ODD)) for _ in range(3))

    def _signed(self) -> str:
        """A token that the issuer did sign, and that says something unacceptable."""
        return self.issuer.token(**self._random.choice(UNACCEPTABLE))


async def run(count: int, seed: int, step: Callable[[int], None] = lambda _: None) -> Counter[int | str]:
    """Throw headers, and count the answers; `let in` counts those that reached the app."""
    fuzzer = Fuzzer(seed)
    echo = Echo()
    settings = GuardSettings(
        auth=AuthSettings(issuer=fuzzer.issuer.url, audience=("api",), algorithms=("ES256",)),
        log=LogSettings(format="off"),
    )
    guard = Guard(echo, settings, http_client=fuzzer.issuer.client)
    found: Counter[int | str] = Counter()
    for number in range(count):
        answer = await get(guard, "/", [(b"authorization", fuzzer.header())])
        found[answer.status or 0] += 1
        if number % STEP == STEP - 1:
            step(STEP)
    found["let in"] = len(echo.scopes)
    return found


def main() -> None:
    """Run from the command line."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**9)  # noqa: S311 - it is printed
    with Progress() as progress:
        bar = progress.add_task("headers", total=count)
        found = asyncio.run(run(count, seed, lambda done: progress.advance(bar, done)))
    answers = ", ".join(f"{status}: {times}" for status, times in sorted(found.items(), key=str))
    print(f"{count} headers, seed {seed}: {answers}")  # noqa: T201 - this is a command
    sys.exit(1 if found["let in"] or any(isinstance(status, int) and status >= 500 for status in found) else 0)


if __name__ == "__main__":
    main()
