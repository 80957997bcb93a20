"""The Dockerfile: what it says, and its commands run for real, in a folder in the place of an image."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from tests.end_to_end.serving import ROOT, free_port
from tests.production.deployment import EXAMPLE

if TYPE_CHECKING:
    from tests.production.deployment import Deployment

REQUIREMENTS = (EXAMPLE / "requirements.txt").read_text("utf-8").splitlines()


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions() -> list[Instruction]:
    """The Dockerfile's instructions, with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (EXAMPLE / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [Instruction(*line.split(maxsplit=1)) for line in lines]


def last(word: str) -> str:
    return [each.rest for each in instructions() if each.word == word][-1]


def test_everything_is_pinned() -> None:
    """The base to a patch release, each package to one version, and nothing installs what is not named."""
    bases = {each.rest.split()[0] for each in instructions() if each.word == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases.pop())
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==[\w.]+", line) for line in REQUIREMENTS if not line.startswith("#"))
    for each in instructions():
        if each.word == "RUN" and "pip install" in each.rest:
            assert "--no-deps" in each.rest


def test_it_runs_as_nobody_in_exec_form() -> None:
    """The user is a number and not root; the command and the health check need no shell."""
    user, group = last("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert json.loads(last("CMD"))[0] == "asgi-guard"
    assert json.loads(last("HEALTHCHECK").partition("CMD ")[2])[0] == "python"
    order = [each.word for each in instructions()]
    assert order.index("USER") > max(index for index, word in enumerate(order) if word in ("RUN", "COPY"))


class Image:
    """A folder in the place of the image's root: absolute paths of the instructions lie in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.folder = root

    def inside(self, text: str) -> str:
        """A text whose absolute paths are those of the folder."""
        return re.sub(r"(?<![\w/:.])/(?=(?:opt|src|srv)\b)", f"{self.root}/", text)

    def build(self) -> None:
        """Do what each instruction says."""
        for word, rest in instructions():
            if word == "RUN":
                subprocess.run(
                    shlex.split(self.inside(rest)), check=True, capture_output=True, env=self.environment, cwd=self.root
                )
            elif word == "COPY" and not rest.startswith("--from"):
                self._copy(*self.inside(rest).split())
            elif word == "ENV":
                said = dict(part.split("=", 1) for part in self.inside(rest).split())
                self.environment |= {n: v.replace("$PATH", self.environment["PATH"]) for n, v in said.items()}
                self.environment.pop("PIP_NO_CACHE_DIR", None)  # the machine's cache is not in the image
            elif word == "WORKDIR":
                self.folder = Path(self.inside(rest))

    def _copy(self, *arguments: str) -> None:
        *sources, target = arguments
        for source in (ROOT / each for each in sources):
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into = Path(target) / source.name if target.endswith("/") else Path(target)
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_image_serves(deployment: Deployment, tmp_path: Path) -> None:
    """Built and started by the Dockerfile's own words, it migrates, is healthy, serves, and ends well on SIGTERM."""
    image = Image(tmp_path)
    image.build()
    environment, jobs = ({**image.environment, **each} for each in (deployment.environment, deployment.jobs))
    migrate = [str(tmp_path / "opt/venv/bin/python"), "-m", "service.migrate", "0002"]
    subprocess.run(migrate, check=True, capture_output=True, env=jobs, cwd=image.folder)
    port = str(free_port())
    words = (part.replace("8000", port) for part in json.loads(last("CMD")))
    command, *arguments = ("127.0.0.1" if part == "0.0.0.0" else part for part in words)  # noqa: S104 - the opposite
    probe = json.loads(last("HEALTHCHECK").partition("CMD ")[2].replace("8000", port))
    with (tmp_path / "err").open("wb") as err:
        server = subprocess.Popen(
            [str(tmp_path / "opt/venv/bin" / command), *arguments],
            env=environment, cwd=image.folder, stdout=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(probe, check=False, capture_output=True, env=environment).returncode != 0:
            assert server.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline, (tmp_path / "err").read_text()
        answer = httpx.get(f"http://127.0.0.1:{port}/payments", headers=deployment.headers("alice"))
        assert answer.json() == {"payments": [], "release": 2}
        server.send_signal(getattr(signal, last("STOPSIGNAL")))
        assert server.wait(30) == 0
    finally:
        server.kill()
