"""An app by its name, and the app that servers are given."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import ConfigError, Guard, GuardSettings
from asgi_guard.apps.loading import load_app
from asgi_guard.configuration.cautions import NOTHING_SAID, OPEN
from tests.asgi import Echo, get

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})

def create():
    return app

class Site:
    main = staticmethod(app)

def wsgi(environ, start_response):
    return []

def of_scope(scope):
    return app

def create_number():
    return 3

class Served:
    def __init__(self, scope, receive, send):
        self._serving = app(scope, receive, send)

    def __await__(self):
        return self._serving.__await__()

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The name of a module of apps that can be imported."""
    (tmp_path / "guarded_site.py").write_text(SOURCE)
    (tmp_path / "needy_site.py").write_text("import something_that_nobody_installed\n")
    (tmp_path / "broken_site.py").write_text("def\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "guarded_site"
    for name in ("guarded_site", "asgi_guard.wrapped"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name", ["guarded_site:app", "guarded_site:create()", "guarded_site:Site.main", "guarded_site:Served"]
)
async def test_an_app_is_found(module: str, name: str) -> None:
    """An app is an attribute, one with dots, or what a function gives that is to be called."""
    assert (await get(load_app(name))).status == 204


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "name the app as module:attribute, as in myapp:app"),
        ("", "name the app as module:attribute"),
        ("guarded_site", "name the app as module:attribute"),
        ("guarded_site:", "name the app as module:attribute"),
        ("guarded_site:()", "name the app as module:attribute"),
        (":app", "name the app as module:attribute"),
        (".guarded_site:app", "name the app as module:attribute"),
        ("guarded_site..x:app", "name the app as module:attribute"),
        ("nowhere_site:app", "there is no module 'nowhere_site' here or among the installed"),
        ("guarded_site.py:app", "among the installed: leave .py out, as in guarded_site:app"),
        ("guarded_site.py:create()", "leave .py out, as in guarded_site:create()"),
        ("sites/guarded_site.py:app", "folders stand with dots, and .py is left out, as in sites.guarded_site:app"),
        ("sites/guarded_site:app", "folders stand with dots, and .py is left out, as in sites.guarded_site:app"),
        ("/srv/guarded_site.py:app", "there is no module '/srv/guarded_site' here or among the installed"),
        ("nowhere_site.py:app", "among the installed: leave .py out, as in nowhere_site:app"),
        ("guarded_site:other", "the module 'guarded_site' has no attribute 'other'"),
        ("guarded_site:Site.other", "the module 'guarded_site' has no attribute 'Site.other'"),
        ("guarded_site:app..x", "the module 'guarded_site' has no attribute 'app..x'"),
        ("guarded_site:number", "guarded_site:number: an int is not an ASGI app: it cannot be called"),
        ("guarded_site:number()", "guarded_site:number(): an int is not an ASGI app: it cannot be called"),
        (
            "guarded_site:app()",
            "guarded_site:app cannot be called without arguments: if it is the app, leave",
        ),
        ("guarded_site:create", "it takes no arguments: if it makes the app, name it guarded_site:create()"),
        ("guarded_site:ap", "the module 'guarded_site' has no attribute 'ap'; did you mean app?"),
        ("guarded_site:creat()", "the module 'guarded_site' has no attribute 'creat'; did you mean create?"),
        ("guarded_site:Site.mian", "the module 'guarded_site' has no attribute 'Site.mian'; did you mean Site.main?"),
        ("guarded_site:create_number()", "what guarded_site:create_number() gives: an int is not an ASGI app"),
        ("guarded_site:Site", "guarded_site:Site: Site is a class: an ASGI app is an instance of it, as in Site()"),
        ("guarded_site:wsgi", "guarded_site:wsgi: it takes two arguments, as WSGI apps do"),
        ("guarded_site:of_scope", "guarded_site:of_scope: it does not take scope, receive and send"),
    ],
)
def test_an_app_that_is_not_there(module: str, name: str | None, message: str) -> None:
    """A name that leads to no app is told under its variable, with what was looked for."""
    with pytest.raises(ConfigError) as caught:
        load_app(name)
    (problem,) = caught.value.problems
    assert problem.name == "ASGI_GUARD_APP"
    assert message in problem.message


@pytest.mark.parametrize(("name", "error"), [("needy_site:app", ModuleNotFoundError), ("broken_site:app", SyntaxError)])
def test_an_error_of_the_app_stays_its_own(module: str, name: str, error: type[Exception]) -> None:
    """What goes wrong within the app's module is raised as it is, with the app's own lines."""
    with pytest.raises(error):
        load_app(name)


async def test_the_wrapped_app(module: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Any server that is given `asgi_guard.wrapped:app` serves the app of the environment behind the guard.

    With nothing set, everyone may do everything, which is told where nobody has chosen so in code.
    """
    Guard(Echo(), GuardSettings())
    assert not caplog.records
    Guard(Echo())
    assert [record.getMessage() for record in caplog.records] == [NOTHING_SAID]
    caplog.clear()
    monkeypatch.setenv("ASGI_GUARD_APP", f"{module}:app")
    monkeypatch.setenv("ASGI_GUARD_LOG_FORMAT", "off")
    served = load_app("asgi_guard.wrapped:app")
    assert isinstance(served, Guard)
    assert [record.getMessage() for record in caplog.records] == [OPEN]
    answer = await get(served)
    assert answer.status == 204
    assert answer.headers["x-request-id"]


def test_the_wrapped_app_needs_a_name(module: str) -> None:
    """Without an app in the environment, the error names the variable."""
    with pytest.raises(ConfigError, match="ASGI_GUARD_APP: name the app"):
        load_app("asgi_guard.wrapped:app")
