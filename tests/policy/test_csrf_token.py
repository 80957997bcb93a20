"""Tokens of pages, bound to a session."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.csrf_token import NONCE_BYTES, TOKEN_CHARACTERS, CSRFTokens

SECRET, NEXT = "s" * 32, "n" * 32
TOKENS = CSRFTokens([SECRET])
NONCE = bytes(range(NONCE_BYTES))

sessions = st.binary(min_size=1, max_size=40)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


def test_the_form() -> None:
    """A token is base64url of the random bytes and an HMAC-SHA256 over them and the session."""
    mac = hmac.new(SECRET.encode(), b"asgi-guard csrf 1\0" + NONCE + b"abc", sha256).digest()
    assert TOKENS.make(b"abc", NONCE) == urlsafe_b64encode(NONCE + mac).decode()


@given(session=sessions, other=sessions, nonce=nonces)
def test_a_token_is_of_one_session(session: bytes, other: bytes, nonce: bytes) -> None:
    """A token holds for the session it was made for, and for no other."""
    token = TOKENS.make(session, nonce)
    assert len(token) == TOKEN_CHARACTERS
    assert TOKENS.verify(token.encode(), session)
    assert TOKENS.verify(token.encode(), other) is (session == other)
    assert token != TOKENS.make(session, bytes(byte ^ 1 for byte in nonce))


@given(session=sessions, nonce=nonces)
def test_rotation(session: bytes, nonce: bytes) -> None:
    """The secret before still verifies and makes no more tokens; one that is gone does neither."""
    old, both, new = TOKENS, CSRFTokens([NEXT, SECRET]), CSRFTokens([NEXT])
    assert both.make(session, nonce) == new.make(session, nonce)
    assert [each.verify(old.make(session, nonce).encode(), session) for each in (old, both, new)] == [True, True, False]


@given(at=st.integers(0, TOKEN_CHARACTERS - 1), byte=st.integers(0, 255))
@example(at=TOKEN_CHARACTERS - 1, byte=ord("="))
def test_every_character_counts(at: int, byte: int) -> None:
    """A token with another byte anywhere is none: there is one way to write it."""
    token = bytearray(TOKENS.make(b"abc", NONCE).encode())
    same = token[at] == byte
    token[at] = byte
    assert TOKENS.verify(bytes(token), b"abc") is same


@pytest.mark.parametrize("change", [b"", b"=", b" ", b"\n", b"A", b"AAAA"])
def test_nothing_is_passed_over(change: bytes) -> None:
    """Nothing before or behind a token is passed over, nor a token that is cut short."""
    token = TOKENS.make(b"abc", NONCE).encode()
    for other in (change + token, token + change, token[: len(token) - len(change)], token[len(change) :]):
        assert TOKENS.verify(other, b"abc") is (other == token)


def test_the_other_alphabet_is_none() -> None:
    """A token in the alphabet of plain base64 is another text, and none."""
    nonce = b"\xff" * NONCE_BYTES
    token = TOKENS.make(b"abc", nonce).encode()
    assert b"_" in token
    assert not TOKENS.verify(token.replace(b"_", b"/").replace(b"-", b"+"), b"abc")


@given(token=st.binary(max_size=80), session=sessions)
def test_what_is_made_up(token: bytes, session: bytes) -> None:
    """Whatever is sent in a token's place is judged, and is none."""
    assert not TOKENS.verify(token, session)
