"""Content-Security-Policy for apps: a typed policy, and the nonce of the response at hand.

from asgi_guard import SecuritySettings, csp

policy = csp.CSP(default_src=(csp.SELF,), script_src=(csp.SELF, csp.NONCE), object_src=(csp.NONE,))
SecuritySettings(preset="page", csp=str(policy))
html = f'<script nonce="{csp.nonce()}">...</script>'
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import SCOPE_KEY, Exchange, current
from asgi_guard.policy.csp import (
    CSP,
    NONCE,
    NONE,
    REPORT_SAMPLE,
    SELF,
    STRICT_DYNAMIC,
    UNSAFE_EVAL,
    UNSAFE_HASHES,
    UNSAFE_INLINE,
    WASM_UNSAFE_EVAL,
    sha256,
)

if TYPE_CHECKING:
    from asgi_guard.asgi import Scope

__all__ = [
    "CSP",
    "NONCE",
    "NONE",
    "REPORT_SAMPLE",
    "SELF",
    "STRICT_DYNAMIC",
    "UNSAFE_EVAL",
    "UNSAFE_HASHES",
    "UNSAFE_INLINE",
    "WASM_UNSAFE_EVAL",
    "nonce",
    "sha256",
]


def nonce(scope: Scope | None = None) -> str:
    """The nonce of the response at hand, for the `nonce` attribute of inline scripts and styles.

    It is made when it is first asked for, 128 bits of chance, and is the same for the whole response. It stands
    wherever the policies, enforced and report-only, have `'nonce'`; the preset `page` has it. Without a
    guard around the app there is no policy, and the nonce is empty.

    Args:
        scope: the request's scope; that of the request in hand unless given.

    Raises:
        RuntimeError: the response has begun, so its policy was sent without a nonce: ask before the first byte.
    """
    exchange: Exchange | None = current.get() if scope is None else scope.get(SCOPE_KEY)
    if exchange is None:
        return ""
    if exchange.nonce is None:
        exchange.nonce = secrets.token_urlsafe(16)
    elif not exchange.nonce:
        raise RuntimeError("the response has begun with a policy that has no nonce: ask for it before the first byte")
    return exchange.nonce
