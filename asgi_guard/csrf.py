"""The token by which a page shows that it is the app's own, for templates and scripts.

from asgi_guard import csrf

html = f'<meta name="csrf-token" content="{csrf.token()}">'

A script of the page sends it back: `fetch(url, {method: "POST", headers: {"x-csrf-token": ...}})`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import current
from asgi_guard.middleware.csrf import TOKEN_KEY, PageToken

if TYPE_CHECKING:
    from asgi_guard.asgi import Scope

__all__ = ["TOKEN_KEY", "token"]


def token(scope: Scope | None = None) -> str:
    """The token of the page that is being answered with, bound to the session that the request's cookie names.

    It is made when it is first asked for, and is the same for the whole response, which says `Vary: Cookie` if that is
    before its first byte. Asked for later, as in a page that is streamed, it is as good, but the response has been sent
    without that word: where caches may keep the page, ask first. It is empty where there is no session yet, and where
    no CSRF layer makes tokens. A session whose cookie changes needs a new one: after a login, ask in the next page.

    Args:
        scope: the request's scope, in which it also stands as a function, `scope["asgi_guard.csrf_token"]()`; that of
            the request in hand unless given.
    """
    if scope is None:
        exchange = current.get()
        if exchange is None:
            return ""
        scope = exchange.scope
    make: PageToken | None = scope.get(TOKEN_KEY)
    return "" if make is None else make()
