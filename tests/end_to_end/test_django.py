"""Django with its own sessions and templates, behind `asgi-guard run`, over real sockets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.end_to_end.serving import Served, free_port, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SITE = """
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import path

from asgi_guard import csrf


def token(request):
    return {"guard_csrf_token": csrf.token()}


settings.configure(
    SECRET_KEY="k" * 50,
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [Path(__file__).parent],
            "OPTIONS": {"context_processors": [f"{__name__}.token"]},
        }
    ],
)


def login(request):
    request.session["user"] = "alice"
    return HttpResponse("welcome")


def page(request):
    return render(request, "page.html")


async def async_page(request):
    return render(request, "page.html")


def move(request):
    return HttpResponse(f"moved for {request.session['user']}")


urlpatterns = [path("login", login), path("", page), path("async", async_page), path("move", move)]
app = get_asgi_application()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("django")
    (folder / "club_site.py").write_text(SITE)
    (folder / "page.html").write_text('<meta name="csrf-token" content="{{ guard_csrf_token }}">')
    port = free_port()
    with serve(
        folder,
        *("run", "club_site:app", "--app-dir", str(folder), "--port", str(port)),
        port=port,
        ASGI_GUARD_CSRF_MODE="enforce",
        ASGI_GUARD_CSRF_SESSION_COOKIE="sessionid",
        ASGI_GUARD_CSRF_SECRET="s" * 32,
    ) as served:
        yield served
        assert served.stop() == 0
        assert "Traceback" not in served.errors()


@pytest.fixture
def client(site: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url) as made:
        yield made


@pytest.mark.parametrize("page", ["/", "/async"])
def test_a_page_acts_with_its_token(client: httpx.Client, page: str) -> None:
    """A template of a view of either sort has the token, with which a browser that says nothing acts for its user."""
    assert client.post("/login").text == "welcome"
    shown = client.get(page)
    (token,) = re.findall(r'content="(\S{64})"', shown.text)
    assert "cookie" in shown.headers["vary"].lower()
    assert client.post("/move", headers={"x-csrf-token": token}).text == "moved for alice"
    for wrong, reason in ((token[::-1], "csrf_token_invalid"), (None, "csrf_token_missing")):
        refused = client.post("/move", headers={} if wrong is None else {"x-csrf-token": wrong})
        assert (refused.status_code, refused.json()["reason"]) == (403, reason)


def test_other_pages_do_not(client: httpx.Client) -> None:
    """What another page has a browser send is refused, and what the app's own sends is not."""
    client.post("/login")
    for name, other, own in (
        ("origin", "https://evil.example", str(client.base_url)),
        ("sec-fetch-site", "same-site", "same-origin"),
    ):
        refused = client.post("/move", headers={name: other})
        assert (refused.status_code, refused.json()["reason"]) == (403, "cross_site")
        assert client.post("/move", headers={name: own}).text == "moved for alice"
