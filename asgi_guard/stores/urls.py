"""URLs of stores: what is wrong with one, in words that hold nothing of the password in it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio import Redis


class URLError(ValueError):
    """What is wrong with a URL, in words that hold no part of it."""


@contextmanager
def reading_url(parts: str) -> Iterator[None]:
    """Say of a URL that cannot be read what to check, and nothing that a parser quotes: that may be of the password.

    Args:
        parts: what a URL of this kind has, beside a password.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        yield
    except URLError as error:
        raise ValueError(f"the URL cannot be read: {error}") from None
    except (ValueError, TypeError, RedisError):
        raise ValueError(f"the URL cannot be read: check {parts}, and percent-encode the password") from None


def try_client(client: Redis) -> None:
    """Have a client made that is thrown away: a malformed URL or option is an error now, not at the first request."""
    pool: Any = client.connection_pool  # whose methods are not typed in every version
    pool.make_connection()


def check_store_url(url: str) -> None:
    """Refuse what the client's parser would quietly read as something else.

    Raises:
        URLError: an unencoded `/`, `?` or `#` ends the password early, the database is not a number, or a socket's
            path is not absolute.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise URLError("a socket has an absolute path: unix:///path")
    elif not re.fullmatch(r"/?\d*", parts.path) or "@" in parts.query + parts.fragment:
        raise URLError(
            "a database is a number, and what may be meant as the password ends before the @: percent-encode it"
        )
