"""The form of a token: every way of writing it but one is refused, before any key is looked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy.token import _STRING, MAX_DEPTH, MAX_KID_LENGTH, MAX_TOKEN_BYTES, parse
from tests.policy.forging import ALL, CLAIMS, b64, compact, encoded, token

HEADER = {"alg": "RS256", "kid": "k1"}


def refusal(sent: bytes, algorithms: frozenset[str] = ALL) -> TokenError:
    """The error that a token is refused with."""
    with pytest.raises(TokenError) as caught:
        parse(sent, algorithms)
    return caught.value


def test_a_token_is_taken_apart_as_it_was_put_together() -> None:
    """What is parsed is what was written, and the signing input is everything before the last dot."""
    sent = compact({**HEADER, "typ": "at+jwt"}, CLAIMS, b"\2" * 256)
    parsed = parse(sent, {"RS256"})
    assert (parsed.algorithm, parsed.kid, parsed.signature) == ("RS256", "k1", b"\2" * 256)
    assert parsed.header == {**HEADER, "typ": "at+jwt"}
    assert parsed.claims == CLAIMS
    assert parsed.signing_input == sent.rpartition(b".")[0]


def test_an_empty_signature_is_well_formed_and_signs_everything_before_the_dot() -> None:
    """The form of an empty signature is right, so that it is the key that refuses it."""
    sent = compact(HEADER, CLAIMS, b"")
    parsed = parse(sent, ALL)
    assert (parsed.signature, parsed.signing_input) == (b"", sent[:-1])


@pytest.mark.parametrize(
    "algorithm",
    [
        "none", "None", "nOnE", "NONE", "", "rs256", "RS256 ", " RS256", "RS256\0", "RS2560", "HS256", "HS512",
        "ES256K", None, 5, True, 0.5, ["RS256"], [], {"RS256": 1}, {},
    ],
)  # fmt: skip
def test_only_exact_names_of_allowed_algorithms_are_accepted(algorithm: object) -> None:
    """An algorithm that is not exactly a name on the allow-list is refused."""
    assert refusal(compact({"alg": algorithm}, CLAIMS)).reason == "algorithm"


def test_a_token_without_algorithm_is_refused() -> None:
    """A header without `alg` names no allowed algorithm."""
    assert refusal(compact({"kid": "k1"}, CLAIMS)).reason == "algorithm"


def test_an_algorithm_that_exists_but_is_not_allowed_is_refused() -> None:
    """The allow-list decides, not what could be verified."""
    assert refusal(token("ES256"), frozenset({"RS256"})).reason == "algorithm"


def test_the_algorithm_is_judged_before_the_payload_is_looked_at() -> None:
    """A token of a wrong algorithm costs no parsing of its payload."""
    assert refusal(encoded({"alg": "none"}) + b".!!!.!!!").reason == "algorithm"


@pytest.mark.parametrize(
    "sent",
    [
        b"", b".", b"a", b"a.b", b"...", b"....", b".....", b"a.b.c.d", b"a.b.c.d.e", b"a.b.c.d.e.f",
        compact(HEADER, CLAIMS) + b".", b"." + compact(HEADER, CLAIMS), compact(HEADER, CLAIMS) + b".AA",
        json.dumps({"protected": "e30", "payload": "e30", "signature": "AA"}).encode(),
        json.dumps({"payload": "e30", "signatures": [{"protected": "e30", "signature": "AA"}]}).encode(),
    ],
)  # fmt: skip
def test_anything_but_three_segments_is_refused(sent: bytes) -> None:
    """Encrypted tokens, JSON serialisation and any other number of segments are malformed."""
    assert refusal(sent).reason == "malformed"


def test_an_encrypted_token_is_called_by_its_name() -> None:
    """The operator is told that a token of five segments is an encrypted one."""
    assert "JWE" in refusal(b"a.b.c.d.e").detail
    assert "JWE" not in refusal(b"a.b.c.d").detail


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s + b"=", lambda s: s + b"==", lambda s: s + b"====", lambda s: b"=" + s,
        lambda s: s + b" ", lambda s: b" " + s, lambda s: s + b"\n", lambda s: s + b"\r\n", lambda s: s + b"\t",
        lambda s: s[:4] + b"\n" + s[4:], lambda s: s[:4] + b" " + s[4:], lambda s: s[:4] + b"\0" + s[4:],
        lambda s: s[:4] + b"\xc3\xa9" + s[4:], lambda s: s[:4] + b"\xff" + s[4:], lambda s: s[:4] + b"!" + s[4:],
        lambda s: s[:4] + b"+" + s[5:], lambda s: s[:4] + b"/" + s[5:], lambda s: s[:4] + b"%2B" + s[4:],
        lambda s: s[: len(s) // 4 * 4 - 3],
    ],
)  # fmt: skip
def test_base64_is_accepted_in_its_canonical_form_only(segment: int, spoil: Any) -> None:
    """Padding, white space, foreign characters and impossible lengths are refused in every segment."""
    segments = compact(HEADER, CLAIMS).split(b".")
    segments[segment] = spoil(segments[segment])
    assert refusal(b".".join(segments)).reason == "malformed"


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("spare", [1, 2])
def test_stray_last_bits_are_refused(segment: int, spare: int) -> None:
    """The bits of the last character that stand for nothing have to be zero."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    parts: list[bytes] = [b'{"alg":"RS256"}', b'{"sub":"al"}', b"\1" * 63]
    parts[segment] += b" " * (-len(parts[segment]) % 3 + spare) if segment < 2 else b"\1" * spare
    canonical = [b64(part) for part in parts]
    parse(b".".join(canonical), ALL)
    last = alphabet.index(canonical[segment][-1:])
    for stray in range(1, 16 if spare == 1 else 4):
        segments = list(canonical)
        segments[segment] = canonical[segment][:-1] + alphabet[last + stray : last + stray + 1]
        assert refusal(b".".join(segments)).reason == "malformed"


STRICTNESS = [
    b"", b" ", b"null", b"true", b"5", b'"text"', b"[]", b'[{"alg":"RS256"}]',
    b"{", b"{}}", b'{"alg":"RS256"} x', b"{'alg':'RS256'}", b'{"alg":"RS256",}', b'{alg:"RS256"}', b'{"alg":"RS256"}\0',
    b'{"alg":"RS256","alg":"RS256"}', b'{"alg":"RS256","\\u0061lg":"RS256"}', b'{"alg":"RS256","x":1,"x":1}',
    b'{"alg":"RS256","x":{"y":1,"y":2}}', b'{"alg":"RS256","x":[{"y":1,"y":1}]}',
    b'{"alg":"RS256","x":NaN}', b'{"alg":"RS256","x":Infinity}', b'{"alg":"RS256","x":-Infinity}',
    b'{"alg":"RS256","x":[NaN]}', b'{"alg":"RS256","x":nan}', b'{"alg":"RS256","x":01}', b'{"alg":"RS256","x":+1}',
    b'{"alg":"RS256","x":0x1}', b'{"alg":"RS256","x":1_000}', b'{"alg":"RS256","x":.5}',
    b'{"alg":"RS256","x":"\n"}', b'{"alg":"RS256","x":"\\x41"}', b'{"alg":"RS256"/**/}',
    b'\xef\xbb\xbf{"alg":"RS256"}', '{"alg":"RS256"}'.encode("utf-16"), '{"alg":"RS256"}'.encode("utf-16-le"),
    '{"alg":"RS256"}'.encode("utf-32"), b'{"alg":"RS256","x":"\xff"}', b'{"alg":"RS256","x":"\xc0\x80"}',
    b'{"alg":"RS256","x":"\xed\xa0\x80"}', b'{"alg":"RS256","x":"\\ud800"}', b'{"alg":"RS256","x":"\\udfff"}',
    b'{"alg":"RS256","x":"\\uDC00\\uD800"}', b'{"alg":"RS256","\\ud800":1}', b'{"alg":"RS256","x":[{"\\udead":1}]}',
    b'{"alg":"RS256","x":' + b"9" * 4400 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("text", STRICTNESS)
def test_the_header_is_strict_json(text: bytes) -> None:
    """A header that another parser might read otherwise is refused."""
    assert refusal(compact(text, CLAIMS)).reason == "malformed"


@pytest.mark.parametrize("text", STRICTNESS)
def test_the_payload_is_strict_json(text: bytes) -> None:
    """A payload that another parser might read otherwise is refused."""
    assert refusal(compact(HEADER, text)).reason == "malformed"


def _nested(depth: int) -> bytes:
    """A payload that is `depth` deep, itself counted."""
    return b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    "text",
    [
        _nested(MAX_DEPTH + 1),
        _nested(1000),
        _nested(2900),
        b'{"x":' * 900 + b"1" + b"}" * 900,
        b'{"a":"' + b"]" * 2000 + b'","b":' + b"[" * 1500 + b"]" * 1500 + b"}",
        b'{"a":["]]]]",' * 300 + b"1" + b"]}" * 300,
        b'{"a":"\\"' + b"}" * 2000 + b'","b":' + b"[" * 1500 + b"]" * 1500 + b"}",
        b"[" * 5000,
        b'{"a":"\\' + b"[" * 5000,
        b'{"a":"' + b"[" * 5000 + b"\\",
        b"]" * 2000 + b"[" * 3000,
        b'{"x":[' + b"[]," * 20 + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"]}",
    ],
)
def test_deep_nesting_is_refused(text: bytes) -> None:
    """JSON nested too deep is refused before it is parsed, whatever brackets its strings hold."""
    assert refusal(compact(HEADER, text)).reason == "malformed"
    assert refusal(compact(text, CLAIMS)).reason == "malformed"


@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"a", b"\n"]), max_size=30).map(b"".join))
@example(b"[" * (MAX_DEPTH + 1) + b'"\\' * 3000)
@example(b'"')
def test_every_quote_begins_a_string_or_ends_one(text: bytes) -> None:
    """A text is looked through once to take its strings out, whatever the last one ends in: no quote is left."""
    assert b'"' not in _STRING.sub(b"", text)


@pytest.mark.parametrize(
    "text",
    [
        _nested(MAX_DEPTH),
        b'{"x":[' + b"[]," * 20 + b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2) + b"]}",
        b'{"x":"' + b"[" * 100 + b'"}',
        b'{"x":"' + b"{[" * 100 + b'","y":"\\"[\\\\"}',
        b'{"x":[' + b",".join([b"[]"] * 100) + b"]}",
        b'{"x":"\\ud83d\\ude00 \\u0000"}',
        '{"x":"é😀"}'.encode(),
        b' {"x" : -1.5e-3 } ',
    ],
)
def test_odd_but_strict_json_is_accepted(text: bytes) -> None:
    """What is strict JSON and not too deep is accepted as Python's own parser reads it."""
    assert parse(compact(HEADER, text), ALL).claims == json.loads(text)


@pytest.mark.parametrize("name", ["crit", "b64", "zip"])
@pytest.mark.parametrize("value", [None, True, False, "DEF", [], ["exp"], ["b64"], {}, 0])
def test_headers_that_change_what_a_token_means_are_refused(name: str, value: object) -> None:
    """The headers `crit`, `b64` and `zip` are refused in any form."""
    assert refusal(compact({**HEADER, name: value}, CLAIMS)).reason == "unsupported"


@pytest.mark.parametrize(
    "value", ["JWT", "jwt", "application/jwt", "APPLICATION/JWT", "Application/Jwt", 5, [], {}, False]
)
def test_nested_tokens_are_refused(value: object) -> None:
    """A token within a token, or a content type that is no string, is refused."""
    assert refusal(compact({**HEADER, "cty": value}, CLAIMS)).reason == "unsupported"


@pytest.mark.parametrize("value", [None, "json", "application/json"])
def test_other_content_types_say_nothing(value: object) -> None:
    """A content type that is no token's is passed over."""
    assert parse(compact({**HEADER, "cty": value}, CLAIMS), ALL).claims == CLAIMS


def test_headers_that_name_keys_change_nothing() -> None:
    """A key or an address of keys in the header is not followed: it does not reach the choice of the key."""
    lures = {"jku": "https://evil.test", "x5u": "https://evil.test", "jwk": {"kty": "oct", "k": "AA"}, "x5c": ["AA"]}
    parsed = parse(compact({**HEADER, **lures}, CLAIMS), ALL)
    assert (parsed.algorithm, parsed.kid) == ("RS256", "k1")


@pytest.mark.parametrize("kid", [5, 0, True, False, 0.5, [], ["k1"], {}, {"k1": 1}, "k" * (MAX_KID_LENGTH + 1)])
def test_a_kid_is_a_string_of_bounded_length(kid: object) -> None:
    """A `kid` that is no string, or longer than allowed, is refused."""
    assert refusal(compact({"alg": "RS256", "kid": kid}, CLAIMS)).reason == "malformed"


@pytest.mark.parametrize("kid", [None, "", "k" * MAX_KID_LENGTH, "../../etc/passwd", "' OR 1=1 --", "é\n\0"])
def test_a_kid_is_only_ever_looked_up(kid: str | None) -> None:
    """A `kid` may hold any text of allowed length, for it is compared and nothing else."""
    assert parse(compact({"alg": "RS256", "kid": kid}, CLAIMS), ALL).kid == kid


def test_size_is_bounded_before_anything_is_parsed() -> None:
    """A token of one byte too many is refused for its size; the longest allowed one is looked at."""
    assert refusal(b"." * (MAX_TOKEN_BYTES + 1)).reason == "too_large"
    assert refusal(b"." * MAX_TOKEN_BYTES).reason == "malformed"
    sent = compact(HEADER, CLAIMS)
    assert refusal(sent + b"A" * (MAX_TOKEN_BYTES + 1 - len(sent))).reason == "too_large"


@pytest.mark.parametrize("value", ["\x1b[31mred", "a\r\nb", "\u202e", "x" * 5000, ["\x07"] * 50])
def test_details_are_fit_for_a_terminal(value: object) -> None:
    """What the operator is shown of a token is short and printable ASCII."""
    detail = refusal(compact({"alg": value}, CLAIMS), frozenset({"RS256"})).detail
    assert detail.isascii()
    assert detail.isprintable()
    assert len(detail) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(sent=st.binary() | st.text(alphabet=".-_=AQeyJ0").map(str.encode))
@example(sent=b"e30.e30.")
@example(sent=b"..")
def test_arbitrary_bytes_raise_nothing_but_token_errors(sent: bytes) -> None:
    """Bytes that are no token are refused, and nothing else happens."""
    assert refusal(sent).reason in {"malformed", "algorithm"}


@given(header=st.binary() | json_values, payload=st.binary() | json_values, signature=st.binary())
@example(header={"alg": "RS256"}, payload=b'{"x":1e999}', signature=b"")
@example(header=b'{"alg":"RS256"}', payload=b'{"a":"' + b"]" * 99 + b'","b":' + b"[" * 2000 + b"}", signature=b"")
def test_arbitrary_segments_are_refused_or_read_exactly(header: object, payload: object, signature: bytes) -> None:
    """Whatever the segments hold, the token is refused as malformed, or it is read as exactly what was written."""
    sent = compact(header, payload, signature)
    reason = None
    try:
        parsed = parse(sent, ALL)
    except TokenError as error:
        reason = error.reason
    else:
        assert parsed.signing_input + b"." + b64(parsed.signature) == sent
        assert parsed.algorithm in ALL
    assert reason in {None, "malformed", "algorithm", "unsupported", "too_large"}
