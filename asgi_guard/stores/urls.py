"""URLs of stores: what is wrong with one, in words that hold nothing of the user and the password in it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import to_bool
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from asgi_guard.errors import ConfigError, Problem, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio import Redis

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}")
_VALKEY = {"valkey": "redis", "valkeys": "rediss"}
_NO_SUCH = re.compile(r"unexpected keyword argument '(\w+)'")
_INVALID = re.compile(r"Invalid value for ['`](\w+)['`]")
_REQUIREMENTS = ("required", "optional", "none")
_ENDED = ("closed by server", "reset by peer")
"""How the client says that the server ended a connection."""
_OWN = (
    "connection_class", "credential_provider", "decode_responses", "encoding", "event_dispatcher",
    "maint_notifications_config", "redis_connect_func", "retry", "retry_on_error",
)  # fmt: skip
"""Options that are the guard's to choose, or that no text can say."""
_FEWEST = 2
"""Connections that a store needs: that of the requests, and one for what is asked beside them."""
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class URLError(ValueError):
    """What is wrong with a URL, in words that hold no user and no password."""


@contextmanager
def reading_url(url: str, schemes: Sequence[str], parts: str) -> Iterator[None]:
    """Say of a URL that cannot be read what to check, and nothing that a parser quotes: that may be of the password.

    Args:
        url: the URL.
        schemes: those that there are, the likeliest first.
        parts: what a URL of this kind has, beside a password.

    Raises:
        ConfigError: it cannot be read, or a file that it names is not there.
    """
    try:
        require_scheme(url, schemes)
        yield
    except URLError as error:
        said = str(error)
    except (ValueError, TypeError, RedisError) as error:
        said = _option_at_fault(url, str(error)) or f"check {parts}, and percent-encode the password"
    else:
        return
    raise ConfigError([Problem("url", f"the URL cannot be read: {said}")]) from None


def require_scheme(url: str, schemes: Sequence[str]) -> None:
    """See to it that a URL has one of the schemes.

    Raises:
        URLError: it has not, or no scheme at all. A bare text could be a password, so it is not told.
    """
    scheme, slashes, _ = url.partition("://")
    if slashes and scheme in schemes:
        return
    known = ", ".join(f"{each}://" for each in schemes)
    if not slashes:
        begun, colon, _ = url.partition(":")
        if colon and (lower := begun.lower()) in schemes:
            raise URLError(f"two slashes stand behind the scheme: write {lower}://")
        likeliest = next(each for each in schemes if each.startswith("redis"))
        raise URLError(f"write {likeliest}:// in front of the address: the scheme is one of {known}")
    lower = scheme.lower()
    better = _VALKEY.get(lower, lower)
    how = "in lower case" if better == lower else "in its place"
    hint = f"write {better}:// {how}: " if better in schemes else ""
    raise URLError(f"{hint}the scheme {f'{scheme!r} ' if _SCHEME.fullmatch(scheme) else ''}is none of {known}")


def try_client(client: Redis, url: str) -> None:
    """Have a client made that is thrown away: a malformed URL or option is an error now, not at the first request.

    Raises:
        URLError: a file that the URL names is not there.
    """
    pool: Any = client.connection_pool  # whose methods are not typed in every version
    pool.make_connection()
    options = _options(url)
    for name in _FILES:
        if name in options and not Path(options[name]).is_file():
            raise URLError(f"{name} names a file that is not there: {options[name]}")


def check_store_url(url: str) -> None:
    """Refuse what the client's parser would quietly read as something else, or say nothing useful of.

    Raises:
        URLError: an unencoded `/`, `?` or `#` ends the password early, there are several hosts, the port or the
            database is none, a socket's path is not absolute, an option of TLS is none or stands where there is no
            TLS, or an option is none that a URL may say.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise URLError("a socket has an absolute path: unix:///path")
    elif "@" in parts.path + parts.query + parts.fragment:
        raise URLError("what may be meant as the password ends before the @: percent-encode it")
    elif "," in parts.netloc.rpartition("@")[2]:
        raise URLError("it has one host: several, with commas, stand in redis+cluster:// and redis+sentinel://")
    elif not is_port(parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]):
        raise URLError("a port is a number from 1 to 65535")
    elif not re.fullmatch(r"/?\d*", parts.path):
        raise URLError("a database is a number: /0")
    for name, value in _options(url).items():
        if name.startswith("ssl_") and parts.scheme != "rediss":
            said = f"the option {name} is" if _may_be_told(name, url) else "the options ssl_... are"
            raise URLError(f"{said} for TLS: have the scheme begin with rediss, or leave that out")
        if name in _OWN:
            said = f"the option {name} is" if _may_be_told(name, url) else "one of the options is"
            raise URLError(f"{said} not for a URL to say: leave it out")
        if name == "max_connections" and value.isdecimal() and int(value) < _FEWEST:
            raise URLError(
                f"max_connections is {_FEWEST} at least, or is left out: pings have a connection of their own"
            )
        if name == "ssl_cert_reqs" and value not in _REQUIREMENTS:
            raise URLError(f"ssl_cert_reqs is one of {', '.join(_REQUIREMENTS)}")


def is_port(text: str) -> bool:
    """Whether this is a port, or none is named."""
    return not text or (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536)


def unverified(url: str) -> str | None:
    """The option by which a URL has any certificate accepted, or one of any host; None where it has neither."""
    try:
        options = _options(url) if url.startswith("rediss") else {}
    except ValueError:  # beside a store that is given in Python, nobody has read it
        return None
    if options.get("ssl_cert_reqs") == "none":
        return "ssl_cert_reqs=none"
    checked = options.get("ssl_check_hostname", "")
    return f"ssl_check_hostname={checked}" if to_bool(checked) is False else None


def advised(failure: StoreUnavailableError, url: str) -> StoreUnavailableError:
    """A failure of a new connection with what to change in the URL, where its cause tells that; else as it is.

    Nothing of the user and the password is in it.
    """
    advice = _advice(failure.__cause__, url)
    if not advice:
        return failure
    told = StoreUnavailableError(f"{failure}{advice}", failure.retry_after, sent=failure.sent)
    told.__cause__ = failure.__cause__
    return told


def _advice(cause: BaseException | None, url: str) -> str:
    """What may be wrong with a URL by which a connection failed; empty where that tells nothing."""
    scheme, parts, options = url.partition("://")[0], urlsplit(url), _options(url)
    if isinstance(inner := getattr(cause, "__cause__", None), AuthenticationError):
        cause = inner  # over a UNIX socket the client puts another error around it
    if isinstance(cause, AuthenticationError) and not (parts.password or options.get("password")):
        better = f"{scheme}://:PASSWORD@{'/path' if scheme == 'unix' else 'host'}"
        if parts.username or options.get("username"):
            return f": a password alone stands behind a colon, as in {better}"
        return f": the server wants a password, as in {better}"
    if isinstance(cause, MasterNotFoundError):
        if AuthenticationError.__name__ in str(cause) and "sentinel_password" not in options:
            return ": the sentinels want a password of their own, as in ?sentinel_password=PASSWORD"
        return ""
    if scheme.startswith("rediss"):
        # What a server without TLS makes of a handshake is nothing, until the time is up.
        return ", or speaks no TLS there" if isinstance(cause, TimeoutError | RedisTimeoutError) else ""
    if scheme != "unix" and isinstance(cause, RedisConnectionError) and any(each in str(cause) for each in _ENDED):
        return f", or speaks TLS there, as in {scheme.replace('redis', 'rediss', 1)}://"
    return ""


def _options(url: str) -> dict[str, str]:
    """The options; of one that is there several times the first, as the client has it."""
    return dict(reversed(parse_qsl(urlsplit(url).query)))


def _may_be_told(name: str, url: str) -> bool:
    """Whether a name of an option is none of the rest of a password that ends early."""
    names = [each for each, _ in parse_qsl(urlsplit(url).query)]
    return name in names and not any("password" in each for each in names[: names.index(name)])


def _option_at_fault(url: str, said: str) -> str:
    """Which option it is that the client does not know, or cannot read."""
    if (found := _NO_SUCH.search(said)) and _may_be_told(found[1], url):
        return f"there is no option {found[1]}"
    if found := _INVALID.search(said):
        return f"the value of the option {found[1]} cannot be meant"
    return ""
