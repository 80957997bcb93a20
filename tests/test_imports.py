"""The rules about what may import what, held by reading the source and by importing it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_guard

ROOT = Path(asgi_guard.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
POLICY = [path for path in MODULES if path.parent == ROOT / "policy"]
NAMES = [path.relative_to(ROOT).as_posix() for path in MODULES]

IMPURE = {
    "asyncio", "httpx", "redis", "logging", "time", "os", "socket", "threading", "random", "secrets", "subprocess",
    "sys", "pathlib", "io", "tempfile", "shutil", "urllib.request", "http.client", "multiprocessing", "concurrent",
    "contextvars", "signal", "select", "ssl",
}  # fmt: skip
PURE = {"asgi_guard.policy", "asgi_guard.errors", "asgi_guard.asgi"}
"""What of this package may be imported where only decisions are made."""
IMPURE_CALLS = {
    "open", "print", "input", "exec", "eval", "__import__",
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid1", "uuid4", "uuid.uuid1", "uuid.uuid4",
}  # fmt: skip
FRAMEWORKS_AND_SERVERS = {
    "starlette", "fastapi", "quart", "django", "litestar", "uvicorn", "hypercorn", "granian", "flask", "sanic",
    "daphne",
}  # fmt: skip


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.Module) -> set[str]:
    """Every module that a source imports anywhere, functions and type checking included, by its full name."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here, so that their names can be read"
            names.update({node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def called(tree: ast.Module) -> set[str]:
    """The dotted name of everything that a source calls."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def environment_uses(tree: ast.Module) -> set[str]:
    """The places where a source touches the process's environment: `read`, `written`, or `taken` in some other way."""
    uses: set[str] = set()
    written: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            written.add(id(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault":
            written.add(id(node.func.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb"):
            uses.add("written" if id(node) in written else "read")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.getenv", "os.getenvb", "os.putenv"):
            uses.add("read")
    names = {"environ", "environb", "getenv", "getenvb"}
    if any(name.startswith("os.") and name.removeprefix("os.") in names for name in imported(tree)):
        uses.add("taken")
    return uses


def within(name: str, packages: set[str]) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def impure(tree: ast.Module) -> set[str]:
    """What a source imports that does input or output, or may: of this package, all that is not known to be pure."""
    names = imported(tree)
    return {name for name in names if within(name, IMPURE | {"asgi_guard"}) and not within(name, PURE)}


def test_the_package_is_where_these_tests_look() -> None:
    """There are modules to hold to the rules, those of the policy among them."""
    assert {"guard.py", "policy/token.py", "policy/keyring.py", "middleware/identity.py", "settings.py"} <= set(NAMES)
    assert len(POLICY) > 20


@pytest.mark.parametrize("path", [*POLICY, ROOT / "errors.py", ROOT / "asgi.py"], ids=lambda path: path.name)
def test_the_policy_is_pure(path: Path) -> None:
    """A module of the policy, or one it uses, imports no input and no output, and asks no clock and no chance."""
    tree = tree_of(path)
    assert impure(tree) == set()
    assert called(tree) & IMPURE_CALLS == set()
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os.path", True), ("from os import path", True), ("import time as t", True),
        ("from asgi_guard.identity import jwks", True), ("from asgi_guard.stores.redis import RedisStore", True),
        ("def f():\n    import socket", True), ("from urllib import request", True),
        ("import ostrich", False), ("from urllib.parse import quote", False),
        ("from asgi_guard.asgi import Header", False), ("from asgi_guard.policy import rates", False),
        ("from asgi_guard.randomness import random_digits", True), ("import asgi_guard.logs", True),
        ("from asgi_guard import request_id", True), ("import asgi_guard", True),
    ],
)  # fmt: skip
def test_every_spelling_of_an_import_is_seen(source: str, found: bool) -> None:
    """The rule sees imports in functions, under other names, and of parts of a package."""
    assert bool(impure(ast.parse(source))) is found


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("cli/") and name != "testing.py"])
def test_no_module_imports_a_framework_or_a_server(name: str) -> None:
    """Outside the command line and the helpers for tests, no source names a web framework or a server to import."""
    found = {module for module in imported(tree_of(ROOT / name)) if within(module, FRAMEWORKS_AND_SERVERS)}
    assert found == set()


@pytest.mark.parametrize(
    "modules",
    [
        "asgi_guard",
        "asgi_guard.settings, asgi_guard.guard, asgi_guard.stores.redis, asgi_guard.identity.jwks",
        "asgi_guard.testing",
        "asgi_guard.cli",
    ],
)
def test_importing_the_package_imports_no_framework_and_no_server(modules: str) -> None:
    """A fresh interpreter that imports the package has loaded no web framework and no server."""
    program = f"import {modules}, sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "asgi_guard" in loaded
    assert loaded & FRAMEWORKS_AND_SERVERS == set()


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_the_only_reader_of_the_environment(name: str) -> None:
    """No module but the settings reads the environment; the command line may set it for the processes it starts."""
    uses = environment_uses(tree_of(ROOT / name))
    if name == "settings.py":
        assert uses == {"read"}
    else:
        assert uses <= ({"written"} if name.startswith("cli/") else set())


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("os.environ['A']", {"read"}), ("os.environ.get('A')", {"read"}), ("os.getenv('A')", {"read"}),
        ("x = {**os.environ}", {"read"}), ("f(os.environ)", {"read"}), ("from os import environ", {"taken"}),
        ("os.environ['A'] = 'b'", {"written"}), ("os.environ.setdefault('A', 'b')", {"written"}),
        ("os.environ['A'] = os.environ['B']", {"written", "read"}), ("os.open('a', 0)", set()),
    ],
)  # fmt: skip
def test_every_use_of_the_environment_is_seen(source: str, uses: set[str]) -> None:
    """The rule tells reading from writing, and sees the environment under its own name."""
    assert environment_uses(ast.parse(source)) == uses
