"""Where credentials are found, and that they are in one place only."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.credentials import (
    MAX_COOKIE_BYTES,
    MAX_QUERY_BYTES,
    Credential,
    MalformedCredentialsError,
    find,
    key_alone,
)
from asgi_guard.policy.token import MAX_TOKEN_BYTES


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer abc", b"bearer abc", b"BEARER abc", b"bEaReR abc", b"Bearer   abc", b"  Bearer abc  ",
        b"\tBearer abc\t",
    ],
)  # fmt: skip
def test_a_bearer_token_is_found(value: bytes) -> None:
    """The scheme is told in any case, and spaces around are none of the token's."""
    assert find([value]) == Credential("bearer", b"abc")


@pytest.mark.parametrize("token", [b"a.b.c", b"a-._~+/==", b"0", b"A" * 100_000])
def test_a_token_is_taken_as_it_is(token: bytes) -> None:
    """Every character that RFC 6750 allows in a token is part of it."""
    assert find([b"Bearer " + token]) == Credential("bearer", token)


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer", b"Bearer ", b"bearer  ", b"Bearer a b", b"Bearer a,b", b"Bearer a, Bearer b", b"Bearer a,Bearer b",
        b"Basic eA==, Bearer b", b"Basic eA==,bearer b", b"Bearer\tabc", b"Bearer \tabc", b"Bearer \t", b"Bearer a\tb",
        b"Basic eA==, Bearer\tb", b"Bearer a\0", b"Bearer \xc3\xa9", b"Bearer \xff", b'Bearer "abc"', b"Bearer a;b",
        b"Bearer a\r\nb", b"Bearer {}", b"Bearer bearer abc",
    ],
)  # fmt: skip
def test_a_bearer_header_is_exactly_one_token(value: bytes) -> None:
    """No token, several of them, or characters that no token has are malformed."""
    with pytest.raises(MalformedCredentialsError):
        find([value])


def test_a_token_that_is_too_large_is_left_to_who_measures_it() -> None:
    """Nobody looks at each byte of a token beyond the size that is verified; up to it, they are those of a token."""
    too_large = b"\xff" * (MAX_TOKEN_BYTES + 1)
    assert find([b"Bearer " + too_large]) == Credential("bearer", too_large)
    with pytest.raises(MalformedCredentialsError):
        find([b"Bearer " + too_large[1:]])


@pytest.mark.parametrize(
    "value", [b"", b" ", b"Basic eA==", b"Digest a=b", b"Negotiate x", b"Bearerabc", b"xBearer", b"abc", b"DPoP abc"]
)
def test_other_schemes_are_nothing_of_ours(value: bytes) -> None:
    """Credentials of another scheme are left to the app, and count as none."""
    assert find([value]) is None
    assert find([value], cookies=[b"t=a"], cookie_name=b"t") == Credential("cookie", b"a")


def test_no_headers_are_no_credentials() -> None:
    """A request without any of the headers shows nothing."""
    assert find([]) is None
    assert find([], [], [b"other=1"], b"t") is None


@pytest.mark.parametrize(
    ("authorization", "api_key", "cookies"),
    [
        ([b"Bearer a", b"Bearer a"], [], []),
        ([b"Bearer a", b"Basic b"], [], []),
        ([b"Basic b", b"Bearer a"], [], []),
        ([b"", b""], [], []),
        ([], [b"k", b"k"], []),
        ([b"Bearer a"], [b"k"], []),
        ([b"Bearer a"], [], [b"t=a"]),
        ([], [b"k"], [b"t=a"]),
        ([b"Bearer a"], [b"k"], [b"t=a"]),
        ([], [], [b"t=a; t=a"]),
        ([], [], [b"t=a", b"t=b"]),
        ([], [], [b"t=a;x=1;t=b"]),
        ([], [], [b"t=; t=a"]),
    ],
)
def test_credentials_in_more_than_one_place_are_malformed(
    authorization: list[bytes], api_key: list[bytes], cookies: list[bytes]
) -> None:
    """Repeated credentials, or credentials of several kinds, leave open which of them is meant."""
    with pytest.raises(MalformedCredentialsError):
        find(authorization, api_key, cookies, b"t")


def test_an_api_key_is_taken_as_it_is() -> None:
    """An API key has no form of its own."""
    assert find([], [b"k !,\xff"]) == Credential("api-key", b"k !,\xff")
    assert find([b"Basic eA=="], [b"k"]) == Credential("api-key", b"k")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"k", b"k"), (b"Bearer k", b"k"), (b"ApiKey k", b"k"), (b"BEARER  k", b"k"), (b"apikey\tk", b"k"),
        (b"Bearer k l", b"k l"), (b"Basic k", b"Basic k"), (b"k l", b"k l"), (b"Bearer", b"Bearer"), (b"", b""),
        (b"  ", b"  "),
    ],
)  # fmt: skip
def test_a_key_in_authorization(value: bytes, key: bytes) -> None:
    """A key may stand behind the scheme Bearer or ApiKey, in any case; behind another word, that is part of it."""
    assert key_alone(value) == key


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([b"t=a"], b"a"), ([b"x=1; t=a; y=2"], b"a"), ([b"x=1", b"t=a"], b"a"), ([b"x=1;t=a"], b"a"),
        ([b't="a"'], b"a"), ([b" t = a "], b"a"), ([b"t=a=b=="], b"a=b=="), ([b"t="], None), ([b"t=a;"], b"a"),
        ([b"T=a"], None), ([b"tt=a"], None), ([b"t"], None), ([b"xt=a"], None), ([b"x=t=a"], None), ([b""], None),
        ([b";;;"], None), ([b"__Host-t=a"], None), ([b"t; t=a"], b"a"),
    ],
)  # fmt: skip
def test_the_cookie_is_found_by_its_exact_name(lines: list[bytes], value: bytes | None) -> None:
    """The token's cookie is found among others, over several lines, by its name in its own case."""
    found = find([], cookies=lines, cookie_name=b"t")
    assert found == (None if value is None else Credential("cookie", value))


def test_cookies_are_not_looked_at_unless_one_is_named() -> None:
    """Without a configured cookie, cookies are nothing, however many and large."""
    assert find([], cookies=[b"t=a; t=b", b"x" * MAX_COOKIE_BYTES * 2]) is None
    assert find([b"Bearer a"], cookies=[b"t=a"]) == Credential("bearer", b"a")


def test_the_size_of_cookies_is_bounded() -> None:
    """Cookies of one byte too many, over all lines, are malformed."""
    filler = b"x=" + b"1" * (MAX_COOKIE_BYTES - 6)
    assert find([], cookies=[b"t=a;", filler], cookie_name=b"t") == Credential("cookie", b"a")
    with pytest.raises(MalformedCredentialsError):
        find([], cookies=[b"t=ab;", filler], cookie_name=b"t")


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"t=a.b.c", b"a.b.c"), (b"x=1&t=a&y=2", b"a"), (b"%74=%61", b"a"), (b"t=a%3D", b"a="), (b"t=a+b", b"a+b"),
        (b"", None), (b"T=a", None), (b"xt=a", None), (b"x=t=a", None), (b"x;t=a", None), (b"&&", None),
    ],
)  # fmt: skip
def test_a_token_in_the_query(query: bytes, value: bytes | None) -> None:
    """A token is taken from the parameter of its exact name, decoded, where one is named, and nothing is where not."""
    expected = None if value is None else Credential("query", value)
    assert find([], query=query, query_name=b"t") == expected
    assert find([], query=query) is None


@pytest.mark.parametrize("query", [b"t=", b"t", b"t=a%20b", b"t=a&t=a", b"t=a&%74=b", b"t=\xff", b"t=a,b"])
def test_a_query_holds_exactly_one_token(query: bytes) -> None:
    """No token, several of them, characters that no token has, and one beside another kind are malformed."""
    with pytest.raises(MalformedCredentialsError):
        find([], query=query, query_name=b"t")
    with pytest.raises(MalformedCredentialsError):
        find([b"Bearer a"], query=b"t=a", query_name=b"t")


def test_the_size_of_queries_is_bounded() -> None:
    """A query of one byte too many is malformed where a token is looked for in it, and nowhere else."""
    longest = b"t=a&" + b"x" * (MAX_QUERY_BYTES - 4)
    assert find([], query=longest, query_name=b"t") == Credential("query", b"a")
    with pytest.raises(MalformedCredentialsError):
        find([], query=longest + b"x", query_name=b"t")
    assert find([], query=longest + b"x") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"DPoP abc", Credential("dpop", b"abc")),
        (b"dpop  abc ", Credential("dpop", b"abc")),
        (b"Bearer abc", Credential("bearer", b"abc")),
        (b"Basic eA==", None),
        (b"DPoPabc", None),
    ],
)
def test_a_bound_token_is_found(value: bytes, found: Credential | None) -> None:
    """Where proofs are taken, a token of the scheme DPoP is one, and told from a bearer token."""
    assert find([value], dpop=True) == found


@pytest.mark.parametrize("value", [b"DPoP", b"DPoP ", b"DPoP a b", b"DPoP a, DPoP b", b"Basic eA==, DPoP\tb"])
def test_a_bound_header_is_exactly_one_token(value: bytes) -> None:
    """No token, or several of them, are malformed under the scheme DPoP too, where that is one of ours."""
    with pytest.raises(MalformedCredentialsError):
        find([value], dpop=True)
    assert find([value]) is None


def test_a_credential_does_not_show_itself() -> None:
    """Printed or logged, a credential says its kind and nothing of its value."""
    assert repr(Credential("bearer", b"secret")) == "Credential(kind='bearer')"


lines = st.lists(st.binary(max_size=40) | st.text('Bearerbasic ,;=\t"ta.', max_size=40).map(str.encode), max_size=3)


@given(authorization=lines, api_key=lines, cookies=lines, cookie_name=st.none() | st.just(b"t"))
@example(authorization=[b"Bearer\tx"], api_key=[], cookies=[], cookie_name=None)
@example(authorization=[b"Basic x"], api_key=[], cookies=[b"t=1"], cookie_name=b"t")
def test_any_headers_show_one_credential_or_none(
    authorization: list[bytes], api_key: list[bytes], cookies: list[bytes], cookie_name: bytes | None
) -> None:
    """Whatever the headers hold, there is one credential that stands in them, none, or they are malformed."""
    try:
        found = find(authorization, api_key, cookies, cookie_name)
    except MalformedCredentialsError:
        return
    if found is None:
        assert not api_key
        return
    source = {"bearer": authorization, "api-key": api_key, "cookie": cookies}[found.kind]
    assert any(found.value in line for line in source)
    assert len(authorization) <= 1
    assert found.kind == "api-key" or not api_key
