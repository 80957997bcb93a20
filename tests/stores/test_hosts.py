"""URLs of several hosts: clusters and sentinels."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import ConfigError, StoreUnavailableError
from asgi_guard.stores import ClusterStore, RedisStore, SentinelStore, open_store
from asgi_guard.stores.hosts import read_hosts
from tests.stores.server import ask

if TYPE_CHECKING:
    from asgi_guard.stores.hosts import Address

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "addresses", "path"),
    [
        ("redis+x://a", (("a", 7),), ""),
        ("redis+x://a:1,b:2,c", (("a", 1), ("b", 2), ("c", 7)), ""),
        ("redis+x://[::1]:1,[2001:db8::1]/p/0", (("::1", 1), ("2001:db8::1", 7)), "/p/0"),
        ("rediss+x://u:p,@a:1,b:2/?db=3", (("a", 1), ("b", 2)), "/"),
    ],
)
def test_hosts_are_read_in_order(url: str, addresses: tuple[Address, ...], path: str) -> None:
    """A URL names hosts with or without ports, names and addresses of either kind, and a path behind them."""
    found = read_hosts(url, 7)

    assert (found.addresses, found.path) == (addresses, path)


def test_what_else_a_url_says_holds_for_every_host() -> None:
    """User, password and options are those of a URL of one host, percent-encoding and all."""
    options = read_hosts("rediss+x://us%40er:p%2Cw%40@a,b?ssl_ca_certs=%2Fca.pem&socket_timeout=2", 7).options

    assert (options["username"], options["password"]) == ("us@er", "p,w@")
    assert (options["ssl_ca_certs"], options["socket_timeout"]) == ("/ca.pem", 2.0)
    assert options["connection_class"].__name__ == "SSLConnection"
    assert "host" not in options


BROKEN = [
    "+{kind}://",
    "+{kind}://:{secret}@",
    "+{kind}://:{secret}@a,,b{path}",
    "+{kind}://:{secret}@a:0{path}",
    "+{kind}://:{secret}@a:65536{path}",
    "+{kind}://:{secret}@a:99999999{path}",
    "+{kind}://:{secret}@a:b{path}",
    "+{kind}://:{secret}@a b{path}",
    "+{kind}://:{secret}@::1{path}",
    "+{kind}://:{secret}@[::1{path}",
    "+{kind}://:{secret}@a:1:2{path}",
    "+{kind}://:{secret}/x@a{path}",
    "+{kind}://:{secret}?x@a{path}",
    "+{kind}://:{secret}#x@a{path}",
    "+{kind}://:{secret}@a{path}?no_such_option=1",
    "+{kind}://:{secret}@a{path}?socket_timeout=soon",
    "+{kind}://:{secret}@a{path}?db=zero",
    "s+{kind}://:{secret}@a{path}?ssl_cert_reqs=maybe",
]
OF_ONE_KIND = [
    f"redis+cluster://:{SECRET}@a/1",
    f"redis+cluster://:{SECRET}@a/service",
    f"redis+cluster://:{SECRET}@a?db=1",
    f"redis+sentinel://:{SECRET}@a",
    f"redis+sentinel://:{SECRET}@a/",
    f"redis+sentinel://:{SECRET}@a/service/one",
    f"redis+sentinel://:{SECRET}@a/service/1/2",
    f"redis+sentinel://:{SECRET}@a/service/1?db=2",
    f"redis+sentinel://user:12/{SECRET}@a/service",
    f"redis+sentinel://user:12/{SECRET}@a",
]


@pytest.mark.parametrize(
    "url",
    [
        *(f"redis{text}".format(kind="cluster", secret=SECRET, path="") for text in BROKEN),
        *(f"redis{text}".format(kind="sentinel", secret=SECRET, path="/service") for text in BROKEN),
        *OF_ONE_KIND,
    ],
)
def test_a_malformed_url_is_an_error_at_once_without_the_password(url: str) -> None:
    """A URL that cannot be meant is a ValueError when the store is made, and the password is in no part of it."""
    with pytest.raises(ValueError, match="cannot be read") as caught:
        open_store(url)

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://127.0.0.1:1", "the name of the service, then a database: /SERVICE or /SERVICE/0"),
        ("redis+sentinel://127.0.0.1:x/service", "hosts stand as host:port,host:port"),
        ("redis+cluster://127.0.0.1:1/1", "a cluster has one database, so none is named"),
        ("redis://127.0.0.1:1/x", "a database is a number"),
        ("redis://:s3/cr3t@127.0.0.1:1/0", "ends before the @: percent-encode it"),
        ("unix://nowhere/s", "a socket has an absolute path"),
        ("redis://127.0.0.1:1/0?timeut=3", "there is no option timeut"),
        ("redis+cluster://127.0.0.1?timeut=3", "there is no option timeut"),
        ("redis+sentinel://127.0.0.1/service?timeut=3", "there is no option timeut"),
        *(
            (f"redis{where}?{option}", f"the option {option.partition('=')[0]} is not for a URL to say: leave it out")
            for where in ("://127.0.0.1", "+cluster://127.0.0.1", "+sentinel://127.0.0.1/service")
            for option in (
                "retry=3",
                "retry_on_error=x",
                "decode_responses=true",
                "encoding=utf-16",
                "credential_provider=x",
                "redis_connect_func=x",
            )
        ),
        ("redis://127.0.0.1?max_connections=1", "max_connections is 2 at least, or is left out"),
        ("redis+cluster://127.0.0.1?max_connections=0", "max_connections is 2 at least, or is left out"),
        ("redis://127.0.0.1:1/0?protocol=9", "check host, port, path and options"),
        ("redis://127.0.0.1?socket_timeout=soon", "the value of the option socket_timeout cannot be meant"),
        ("redis://127.0.0.1:0", "a port is a number from 1 to 65535"),
        ("redis://127.0.0.1:99999", "a port is a number from 1 to 65535"),
        ("redis+cluster://127.0.0.1:99999999", "a port is a number from 1 to 65535"),
        ("redis://127.0.0.1?ssl_ca_certs=/ca.pem", "the option ssl_ca_certs is for TLS: have the scheme begin with"),
        ("redis+cluster://a?ssl_ca_certs=/ca.pem", "the option ssl_ca_certs is for TLS: have the scheme begin with"),
        ("rediss://127.0.0.1?ssl_ca_certs=/no/ca.pem", "ssl_ca_certs names a file that is not there: /no/ca.pem"),
        ("rediss+cluster://a?ssl_keyfile=/no/k.pem", "ssl_keyfile names a file that is not there: /no/k.pem"),
        ("rediss://127.0.0.1?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of required, optional, none"),
        ("redis://a,b", "several, with commas, stand in redis+cluster:// and redis+sentinel://"),
        ("redis:/127.0.0.1", "two slashes stand behind the scheme: write redis://"),
        ("redis+cluster:127.0.0.1", "two slashes stand behind the scheme: write redis+cluster://"),
        ("REDIS://127.0.0.1", "write redis:// in lower case: the scheme 'REDIS' is none of memory://, redis://"),
        ("Redis+Cluster://127.0.0.1", "write redis+cluster:// in lower case"),
        ("Rediss:127.0.0.1", "two slashes stand behind the scheme: write rediss://"),
        ("Valkeys://127.0.0.1", "write rediss:// in its place: the scheme 'Valkeys' is none of"),
        ("127.0.0.1:6379", "write redis:// in front of the address: the scheme is one of memory://, redis://"),
        ("http://127.0.0.1", "the scheme 'http' is none of memory://, redis://"),
    ],
)
def test_what_is_wrong_with_a_url_is_told(url: str, said: str) -> None:
    """The error says what to change, where that can be said without a part of the URL."""
    with pytest.raises(ValueError, match="the URL cannot be read") as caught:
        open_store(url)
    assert said in str(caught.value)


async def test_where_no_sentinel_answers_each_is_named() -> None:
    """The error names the sentinels that were asked, and not all that the client knows of its connections."""
    store = open_store("rediss+sentinel://127.0.0.1:1,127.0.0.1:2/service", timeout=10)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.ping()
    said = str(caught.value.__cause__)
    assert "No master found for 'service'" in said
    assert "127.0.0.1:1 - " in said
    assert "127.0.0.1:2 - " in said
    assert "<redis" not in said
    await store.aclose()


@pytest.mark.parametrize("kind", [ClusterStore, RedisStore, SentinelStore])
@pytest.mark.parametrize(
    "url", [f"http://:{SECRET}@a", f"memory://:{SECRET}@/a", SECRET, "", f"a:{SECRET}@a:1", f"{SECRET}@{SECRET}://a"]
)
def test_a_url_of_another_kind_is_refused(kind: type[ClusterStore | RedisStore], url: str) -> None:
    """A store is made of no URL that is none of its own, and says which those are."""
    with pytest.raises(ConfigError, match=r"cannot be read: .*the scheme .*(none|one) of redis.*://$") as caught:
        kind(url)

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("kind", [ClusterStore, SentinelStore])
@pytest.mark.parametrize("scheme", ["redis", "unix"])
def test_a_url_of_one_host_is_none_of_several(kind: type[ClusterStore | SentinelStore], scheme: str) -> None:
    """A store of several hosts is made of no URL of one."""
    with pytest.raises(ConfigError, match=f"the scheme '{scheme}' is none of redis") as caught:
        kind(f"{scheme}://:{SECRET}@a")

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", [SECRET, f"ssl_{SECRET}"])
def test_what_stands_behind_a_password_may_be_of_it(name: str) -> None:
    """A name behind a password in the options is not told: the password may have ended early."""
    with pytest.raises(ConfigError) as caught:
        RedisStore(f"redis://127.0.0.1?password=12&{name}=3")

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"redis+cluster://user:{SECRET}@127.0.0.1:1,127.0.0.1:2",
        f"rediss+cluster://127.0.0.1:1/0?username=user&password={SECRET}&ssl_ca_certs={__file__}",
        f"redis+sentinel://user:{SECRET}@127.0.0.1:1,127.0.0.1:2/service/3",
        f"redis+sentinel://127.0.0.1:1/service?sentinel_username=user&sentinel_password={SECRET}&db=3",
        f"rediss+sentinel://:{SECRET}@127.0.0.1:1/service?ssl_ca_certs={__file__}",
    ],
)
async def test_the_password_is_never_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where no host can be reached, neither the error nor its causes, the log nor the repr holds the password."""
    store = open_store(url, timeout=10)
    assert isinstance(store, ClusterStore | SentinelStore)
    caplog.set_level("DEBUG")

    for call in (store.admit(ask("a")), store.revoke("t", 1), store.ping()):
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert 0 < caught.value.retry_after <= 1
    store.tell(ask("a"))

    assert [record.levelname for record in caplog.records if record.name == "asgi_guard"] == ["ERROR"]
    assert SECRET not in caplog.text
    assert SECRET not in repr(store)
    await store.aclose()
