"""Names under which strangers register, which no wildcard may stand before."""

from __future__ import annotations

import pytest

from asgi_guard.errors import ConfigError
from asgi_guard.policy.cors import CORSOptions, CORSPolicy
from asgi_guard.policy.public_suffixes import is_public_suffix


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("com", True), ("de", True), ("co.uk", True), ("com.au", True), ("or.jp", True), ("github.io", True),
        ("herokuapp.com", True), ("vercel.app", True), ("eu.org", True), ("asso.fr", True),
        ("example.com", False), ("example.co.uk", False), ("co.example", False), ("me.github.io", False),
        ("uk.example", False), ("x.co.uk.example", False),
    ],
)  # fmt: skip
def test_public_suffixes(name: str, public: bool) -> None:
    """Top-level domains, their categories and the hosts of many customers are public; what is below them is not."""
    assert is_public_suffix(name) is public
    origin = f"https://*.{name}"
    if public:
        with pytest.raises(ConfigError) as caught:
            CORSPolicy.of(CORSOptions(allow_origins=[origin]))
        assert [fault.kind for fault in caught.value.problems] == ["public_suffix"]
    assert CORSPolicy.of(CORSOptions(allow_origins=[origin], unsafe_public_suffixes=True)).allows_origin(
        f"https://a.{name}".encode()
    )
