"""The environment, read once into frozen values: the only module that reads it.

Each layer has a section, and each field of a section a variable: `auth.issuer` is `ASGI_GUARD_AUTH_ISSUER`. Lists are
written `a, b` or as JSON. All problems are reported together, by the variable's name; values that may be secret are
never repeated.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from asgi_guard.configuration.cross_check import CROSS_CHECKED, cross_check
from asgi_guard.configuration.findings import findings
from asgi_guard.configuration.section_base import Section
from asgi_guard.configuration.sections import (
    AuthSettings,
    CORSSettings,
    CSRFSettings,
    HealthSettings,
    HostsSettings,
    LogSettings,
    MetricsSettings,
    ProxySettings,
    RateSettings,
    RequestIDSettings,
    SecuritySettings,
    StoreSettings,
)
from asgi_guard.configuration.values import Routes, rows_of
from asgi_guard.configuration.variables import PREFIX, Variable, resembling, unknown_variables, variables_of
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.rates import holds_limits
from asgi_guard.policy.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from asgi_guard.policy.routes import Route


WORKERS = f"{PREFIX}RATE_WORKERS"
"""By which whoever starts several processes says how many."""
ROUTES, ROUTES_FILE = f"{PREFIX}ROUTES", f"{PREFIX}ROUTES_FILE"
"""By which the rows of the route table come."""
UTF_8 = "utf-8-sig"
"""How files are read: editors, of Windows above all, put a mark in front of UTF-8 that nobody sees."""
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""By which prometheus_client is told where several processes measure together."""


def variables() -> list[Variable]:
    """Every variable there is, section by section."""
    return variables_of(GuardSettings)


def environment() -> dict[str, Any]:
    """What the variables say, as `{section: {field: value}}`.

    Values are UTF-8, whatever the locale. White space around one is none of it: files that values are mounted from end
    in a newline. An empty value counts as not set, and so does a file that cannot be read.
    """
    return _read(())[0]


def _read(given: Container[str]) -> tuple[dict[str, Any], list[Problem]]:
    """What the variables say, but for the sections that are given in Python, and what is wrong with how they say it."""
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for variable in variables():
        if (variable.section or variable.field) in given:
            continue
        value, problem = _value(variable)
        if problem is not None:
            problems.append(problem)
        if value:
            target = values.setdefault(variable.section, {}) if variable.section else values
            target[variable.field] = value
    return values, problems


def _said(name: str | None) -> str:
    return "" if name is None else os.environ.get(name, "").strip()


def workers_said() -> str:
    """What the environment says of how many processes there are; empty if nothing."""
    return _said(WORKERS)


def _value(variable: Variable) -> tuple[str, Problem | None]:
    """What a variable says, or the file that it names; and what is wrong with that, if anything."""
    value, path = _said(variable.name), _said(variable.file)
    if not variable.name.endswith("_FILE"):  # the name of a file may be any bytes
        try:
            # Whatever the locale makes of it: in some, what ends a character is white space.
            value = os.fsencode(os.environ.get(variable.name, "")).decode().strip()
        except UnicodeDecodeError:
            return "", Problem(variable.name, "it is not UTF-8 text")
    if variable.file is None:
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            said = "the quotes are part of the value, as of one in an env file of Docker: leave them out"
            return value[1:-1], Problem(variable.name, said)  # so that nothing else is found wrong with it
        return value, None
    if value and path:
        return value, Problem(variable.file, f"{variable.name} is set too: keep the secret in one place")
    return (value, None) if value or not path else _secret(variable.file, path)


def _secret(name: str, path: str) -> tuple[str, Problem | None]:
    """What a file of a secret holds, or why it cannot be used."""
    try:
        value = Path(path).read_text(UTF_8).strip()
    except OSError as error:
        if not _is_place(path):
            said = f"it names no file that can be read ({error.strerror}): it takes the path of a file, not the secret"
            return "", Problem(name, said)
        return "", Problem(name, f"{path} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        return "", Problem(name, f"{path} is not text")
    return value, None if value else Problem(name, f"{path} is empty")


def _is_place(path: str) -> bool:
    """Whether the first folder on this path is there; else it may be the secret itself, which may hold slashes too."""
    folders = Path(path).parents
    return len(folders) > 1 and os.path.isdir(folders[-2])  # noqa: PTH112 - Path's raises for what is too long


def _count_workers(given: dict[str, Any]) -> bool:
    """Count the workers for a rate section in Python that says nothing of them; tell whether that was done.

    That is no matter of policy but of how the app is started, and `asgi-guard run --workers` says so by the variable.
    """
    rate, said = given.get("rate"), _said(WORKERS)
    if isinstance(rate, RateSettings) and "workers" not in rate.model_fields_set and said.isdecimal() and int(said):
        given["rate"] = rate.model_copy(update={"workers": int(said)})
        return True
    if isinstance(rate, dict) and "workers" not in rate and said:
        given["rate"] = {**rate, "workers": said}
        return True
    return False


def _set_for(given: Container[str]) -> Iterator[tuple[str, str]]:
    """The variables that are set for sections that are given in Python, each with the place that holds instead."""
    for variable in variables():
        if (variable.section or variable.field) in given:
            kind = type(GuardSettings.model_fields[variable.section].default) if variable.section else GuardSettings
            place = f"{kind.__name__}({variable.field}=...)"
            yield from ((name, place) for name in (variable.name, variable.file) if name is not None and _said(name))


class SettingsError(ConfigError):
    """The environment cannot be used.

    Attributes:
        rest: the settings without the fields at fault, to look for what is wrong beyond them.
    """

    def __init__(self, problems: Iterable[Problem], rest: GuardSettings) -> None:
        self.rest = rest
        super().__init__(problems)


class GuardSettings(BaseSettings):
    """Everything that `Guard` can be told.

    What is not given here comes from the environment; a section that is given is taken whole, as it is.

    Raises:
        ConfigError: with everything that is wrong, by variable name; a value that is given here, and is none, by its
            place here, as `GuardSettings.auth.leeway`.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app: str | None = Field(default=None, description="the app of `asgi_guard.wrapped:app`, as `module:attribute`")
    routes: Routes = Field(default=(), description="the route table, as JSON")
    routes_file: Path | None = Field(
        default=None, description="a TOML file with the route table as `[[routes]]`, instead"
    )
    store: StoreSettings = StoreSettings()
    auth: AuthSettings = AuthSettings()
    rate: RateSettings = RateSettings()
    cors: CORSSettings = CORSSettings()
    csrf: CSRFSettings = CSRFSettings()
    security: SecuritySettings = SecuritySettings()
    hosts: HostsSettings = HostsSettings()
    proxy: ProxySettings = ProxySettings()
    request_id: RequestIDSettings = RequestIDSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    health: HealthSettings = HealthSettings()

    _unread: dict[str, str] = PrivateAttr(default_factory=dict)
    _resembling: dict[str, str] = PrivateAttr(default_factory=dict)
    _emptied: tuple[str, ...] = PrivateAttr(default=())
    _scraped_whole: bool = PrivateAttr(default=False)
    _routes_variable: str = PrivateAttr(default=ROUTES)

    if not TYPE_CHECKING:  # to type checkers a call is as the fields declare it: they see misspelt ones before

        def __init__(self, **values: Any) -> None:
            counted = _count_workers(values)
            if isinstance(rows := values.get("routes"), Iterator):
                values["routes"] = tuple(rows)  # what can be read once is read again where a row is wrong
            known = {name for variable in variables() for name in (variable.name, variable.file) if name}
            read, unreadable = _read(values)
            problems = [*unknown_variables(os.environ, known), *unreadable]
            try:
                super().__init__(**read, **values)
            except ValidationError as error:
                problems += problems_of(error, values)
                at_fault = {str(each["loc"][0]) for each in error.errors()}
                more, rest = _rest({**read, **values}, error)._look_through(at_fault)
                raise SettingsError([*problems, *more], rest) from None
            self._unread = {name: place for name, place in _set_for(values) if not (counted and name == WORKERS)}
            self._resembling = resembling(os.environ, known)
            self._emptied = tuple(sorted(name for name in known & os.environ.keys() if not _said(name)))
            self._scraped_whole = bool(os.environ.get(MULTIPROCESS))
            more, rest = self._look_through()
            if problems or more:
                raise SettingsError([*problems, *more], rest)

    @property
    def unread(self) -> Mapping[str, str]:
        """The variables that are set and do not hold, since their sections are given in Python: where to say it."""
        return self._unread

    @property
    def resembling(self) -> Mapping[str, str]:
        """Variables that are set, and look like misspelt ones: what may be meant by each."""
        return self._resembling

    @property
    def emptied(self) -> Sequence[str]:
        """Variables that are set to nothing, which counts as not set: perhaps what was to fill them in is missing."""
        return self._emptied

    @property
    def scraped_whole(self) -> bool:
        """Whether a scrape sees what all workers measured, by prometheus_client's `PROMETHEUS_MULTIPROC_DIR`."""
        return self._scraped_whole

    @property
    def routes_variable(self) -> str:
        """The variable that what is wrong with a row is told by: the one of the file, if the rows are from there."""
        return self._routes_variable

    @property
    def route_table(self) -> RouteTable:
        """The rows, ready to be matched; where identity is off, what no row names is open."""
        return RouteTable(self.routes, open_to_all=not self.auth.on)

    @property
    def limited(self) -> bool:
        """Whether any limit is set, by default, in a row or in a plan."""
        limits = (self.rate.limit, *(route.limits for route in self.routes))
        return bool(self.rate.plans) or any(map(holds_limits, limits))

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic-settings documents it
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # what the environment says is given there too: it is read once, for its problems

    def _look_through(self, at_fault: AbstractSet[str] = frozenset()) -> tuple[list[Problem], GuardSettings]:
        """What is wrong beyond single fields, and the settings without that; crosswise only where all are there."""
        problems, no_folder = list(self._load_routes_file()), list(_no_folder(self))
        problems += (*no_folder, *(() if at_fault & CROSS_CHECKED else cross_check(self, at_fault)))
        return problems, _unmeasured(self) if no_folder else self

    def _load_routes_file(self) -> Iterator[Problem]:
        """Put the rows of the file in the place of `routes`, while nobody has seen the settings yet."""
        if self.routes_file is None:
            return
        name = ROUTES_FILE
        if self.routes:
            yield Problem(name, f"rows are given too ({ROUTES}, or routes=): keep the route table in one place")
            return
        try:
            document = tomllib.loads(self.routes_file.read_text(UTF_8))
            table = _RouteFile.model_validate(document)
        except OSError as error:
            yield Problem(name, f"{self.routes_file} cannot be read: {error.strerror}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Problem(name, f"{self.routes_file} is not TOML: {error}")
        except ValidationError as error:
            if isinstance(document.get("routes"), dict):
                yield Problem(
                    name, f"{self.routes_file} has one [routes]: rows are written [[routes]], in two brackets"
                )
                return
            if set(document) != {"routes"}:
                found = ", ".join(sorted(document)) or "nothing"
                yield Problem(name, f"{self.routes_file} holds {found}: it holds the table as [[routes]], and no more")
                return
            yield from (Problem(name, problem.message) for problem in problems_of(error))
        else:
            object.__setattr__(self, "routes", table.routes)
            self._routes_variable = name


def _no_folder(settings: GuardSettings) -> Iterator[Problem]:
    """Tell where several processes cannot measure together, before prometheus_client raises, or writes elsewhere.

    It takes an empty value for a folder, too: the one that the process was started in.
    """
    folder = os.environ.get(MULTIPROCESS)
    if not settings.metrics.path or folder is None:
        return
    if not folder:
        found = "it is empty: name a folder"
    elif not Path(folder).is_dir():
        found = f"there is no folder {folder}: make it before the workers start"
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        found = f"this process may not read and write in {folder}: name a folder where it may"
    else:
        return
    yield Problem(MULTIPROCESS, f"{found}, or unset the variable if one process is all there is")


def _unmeasured(settings: GuardSettings) -> GuardSettings:
    """The same, but for measures: prometheus_client would make its files when it is first asked for any."""
    return settings.model_copy(update={"metrics": type(settings.metrics)()})


class _RouteFile(Section):
    routes: Routes


def problems_of(error: ValidationError, given: Container[str] = ()) -> Iterator[Problem]:
    """Tell what pydantic found, by the variables' names, or by the place of what was given in Python."""

    def named(path: tuple[str, ...]) -> str:
        return ".".join((GuardSettings.__name__, *path)) if path[0] in given else PREFIX + "_".join(path).upper()

    return findings(error, GuardSettings, named)


def _rest(values: dict[str, Any], error: ValidationError) -> GuardSettings:
    """The settings without the fields at fault, each section by itself."""
    at_fault = {tuple(each["loc"][:2]) for each in error.errors(include_url=False, include_context=False)}
    rest: dict[str, Any] = {}
    for name, info in GuardSettings.model_fields.items():
        value = values.get(name, info.default)
        if isinstance(info.default, Section) and isinstance(value, dict):
            kept = {field: each for field, each in value.items() if (name, field) not in at_fault}
            value = type(info.default).model_validate(kept)
        elif name == "routes" and (
            rows := {location[1] for location in at_fault if location[0] == name and location[1:]}
        ):
            value = _other_rows(value, rows)
        elif any(location[0] == name for location in at_fault):
            value = info.default
        elif name == "routes":
            value = _RouteFile.model_validate({"routes": value}).routes
        elif name == "routes_file" and value is not None:
            value = Path(value)
        rest[name] = value
    return GuardSettings.model_construct(**rest)


def _other_rows(value: object, at_fault: Container[int | str]) -> Sequence[Route]:
    """The rows but for those at fault, which are known by their places."""
    rows: Any = rows_of(value)  # what has no places has none at fault
    return _RouteFile.model_validate(
        {"routes": [row for place, row in enumerate(rows) if place not in at_fault]}
    ).routes
