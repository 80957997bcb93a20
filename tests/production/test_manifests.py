"""The example's manifests, against Kubernetes' own schemas and against what the service really does."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import orjson
import pytest
import yaml

from asgi_guard import Guard, GuardSettings, HealthSettings
from asgi_guard.policy.rates import SECOND, parse_limits
from asgi_guard.settings import variables
from tests.asgi import Echo
from tests.cli.conftest import program
from tests.production.deployment import EXAMPLE, JOB, MANIFESTS, documents, guard_env, job_env, manifest, role

STRAY = {"ASGI_GUARD_STORE_URL"}
"""What differs from place to place, or is secret."""


def pod(kind: str = "Deployment", name: str = "payments") -> dict[str, Any]:
    spec: dict[str, Any] = manifest(kind, name)["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


def config() -> dict[str, str]:
    """The variables that the container is given, those of the Secret included."""
    secret = manifest("Secret", "payments")["stringData"]
    return {**manifest("ConfigMap", "payments-guard")["data"], **secret}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))
    return found


def dockerfile() -> str:
    return (EXAMPLE / "Dockerfile").read_text("utf-8")


def cmd() -> list[str]:
    found: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", dockerfile(), re.MULTILINE)[-1])
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid(path: Any) -> None:
    """Every document is what Kubernetes' schema for it allows, and no field is misspelt."""
    for document in yaml.safe_load_all(path.read_text("utf-8")):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_a_misspelt_field_is_found() -> None:
    """The schemas are strict."""
    broken = manifest("Deployment", "payments")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_the_settings_are_those_of_the_env_file() -> None:
    """The ConfigMap says what `guard.env` says, and every variable exists."""
    data = manifest("ConfigMap", "payments-guard")["data"]
    assert data.keys() == guard_env().keys()
    assert data.keys() | STRAY <= {variable.name for variable in variables()}
    for name, value in guard_env().items():
        if name == "ASGI_GUARD_ROUTES":
            assert json.loads(data[name]) == json.loads(value)
        else:
            assert data[name] == value


def test_the_settings_make_a_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """They can be used as they are, with the numbers that are promised."""
    for name, value in config().items():
        monkeypatch.setenv(name, value)
    settings = Guard(Echo(), GuardSettings()).settings
    limits = {limit.key: (SECOND / limit.interval, limit.burst) for limit in parse_limits(settings.rate.limit)}
    assert {key: (round(rate), burst) for key, (rate, burst) in limits.items()} == {
        "user": (60, 120),
        "anonymous": (10, 20),
    }
    rows = {(route.path, route.methods): route.limits for route in settings.routes}
    assert rows["/login", ("POST",)] == "5/minute by ip"
    assert str(rows["/payments", ("POST",)]).startswith("2/second by user;")
    assert settings.auth.max_token_lifetime == 12 * 60
    assert len(settings.cors.allow_origins) == 2
    assert settings.cors.allow_credentials
    assert len(settings.cors.allow_methods) == 5
    assert len(settings.cors.allow_headers) == 3
    assert settings.cors.max_age == 3600


def test_the_checklist_holds() -> None:
    """`check --production` finds nothing to set, with the times of the Deployment and of the image."""
    drain_to_kill = pod()["terminationGracePeriodSeconds"] - container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    ran = program(
        *("check", "--production", "--json", "--no-probe", "--app", "service.main:app", "--p99", "0.18"),
        *("--graceful", cmd()[cmd().index("--graceful") + 1], "--grace-period", str(drain_to_kill)),
        PYTHONPATH=str(EXAMPLE),
        **config(),
    )
    told = orjson.loads(ran.out)
    assert ran.code == 0, told
    assert {line["name"] for line in told["checklist"] if line["status"] == "unknown"} == {
        "refresh tokens", "logout", "migrations", "lifespan",
    }  # fmt: skip
    (probes,) = (line for line in told["checklist"] if line["name"] == "probes")
    assert probes["found"] == "readiness asks keys, postgres, store"


def test_probes_and_ports_are_those_of_the_service() -> None:
    """Probes ask where the guard answers, on the port that the server listens on, and drain outlasts readiness."""
    settings = GuardSettings(health=HealthSettings(drain_seconds=float(config()["ASGI_GUARD_HEALTH_DRAIN_SECONDS"])))
    only = container()
    port = int(cmd()[cmd().index("--port") + 1])
    assert only["ports"] == [{"name": "http", "containerPort": port}]
    assert manifest("Service", "payments")["spec"]["ports"][0]["targetPort"] == "http"
    for probe, path in (
        ("startupProbe", settings.health.live_path),
        ("livenessProbe", settings.health.live_path),
        ("readinessProbe", settings.health.ready_path),
    ):
        assert only[probe]["httpGet"] == {"path": path, "port": "http"}
    assert f"http://127.0.0.1:{port}{settings.health.live_path}" in dockerfile()
    assert f"EXPOSE {port}\n" in dockerfile()
    assert compose()["services"]["service"]["ports"] == [f"127.0.0.1:8000:{port}"]
    ready = only["readinessProbe"]
    noticed = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    assert settings.health.drain_seconds > noticed


def test_the_ingress_leads_to_the_service() -> None:
    """It answers by TLS for the hosts that the guard answers for, and hands on to the Service's port."""
    spec, ports = manifest("Ingress", "payments")["spec"], manifest("Service", "payments")["spec"]["ports"]
    hosts = config()["ASGI_GUARD_HOSTS_ALLOWED"].split(", ")
    assert [rule["host"] for rule in spec["rules"]] == [host for each in spec["tls"] for host in each["hosts"]] == hosts
    for rule in spec["rules"]:
        (path,) = rule["http"]["paths"]
        assert path["backend"] == {"service": {"name": "payments", "port": {"name": ports[0]["name"]}}}


def test_what_prometheus_is_told() -> None:
    """The pods' annotations name the path that the guard answers and the port that the server listens on."""
    annotations = manifest("Deployment", "payments")["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": cmd()[cmd().index("--port") + 1],
        "prometheus.io/path": config()["ASGI_GUARD_METRICS_PATH"],
    }


def test_a_stop_has_the_time_that_it_takes() -> None:
    """Nothing is killed that is still about to end: preStop, drain, graceful and the lifespan's end fit."""
    drain = float(config()["ASGI_GUARD_HEALTH_DRAIN_SECONDS"])
    stop = drain + float(cmd()[cmd().index("--graceful") + 1]) + 5
    assert pod()["terminationGracePeriodSeconds"] > container()["lifecycle"]["preStop"]["sleep"]["seconds"] + stop
    assert int(compose()["services"]["service"]["stop_grace_period"].rstrip("s")) > stop
    assert "STOPSIGNAL SIGTERM" in dockerfile()


def test_a_rollout_never_has_fewer_replicas() -> None:
    """One more at a time, none fewer; and a node can be drained all the same."""
    strategy = manifest("Deployment", "payments")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}
    scale = manifest("HorizontalPodAutoscaler", "payments")["spec"]
    assert manifest("PodDisruptionBudget", "payments")["spec"]["minAvailable"] < scale["minReplicas"] == 3
    assert scale["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "payments"}
    assert int(config()["ASGI_GUARD_RATE_WORKERS"]) == scale["maxReplicas"]


def test_names_lead_to_what_there_is() -> None:
    """Every selector selects the pods that are meant, and every reference names something that is there."""
    labels = {
        name: manifest(kind, full)["spec"]["template"]["metadata"]["labels"]
        for name, kind, full in (("pods", "Deployment", "payments"), ("jobs", "Job", JOB))
    }
    selectors = [
        manifest("Deployment", "payments")["spec"]["selector"]["matchLabels"],
        manifest("Service", "payments")["spec"]["selector"],
        manifest("PodDisruptionBudget", "payments")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy", "payments")["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels["pods"]] * 4
    assert manifest("NetworkPolicy", "payments-jobs")["spec"]["podSelector"]["matchLabels"] == labels["jobs"]
    for spec in (pod(), pod("Job", JOB)):
        for source in spec["containers"][0]["envFrom"]:
            for kind, reference in source.items():
                assert manifest({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"])


def test_the_job_is_the_release_s() -> None:
    """The job runs the image of the Deployment, to a revision that there is; compose has the same command."""
    (job,) = pod("Job", JOB)["containers"]
    assert job["image"] == container()["image"]
    assert job["command"] == compose()["services"]["migrate"]["command"]
    revision = job["command"][-1]
    assert list((EXAMPLE / "migrations" / "versions").glob(f"m{revision}_*.py"))


def test_the_job_grants_to_the_service() -> None:
    """Whom the job grants rights to is who the service connects as, and not who the job does; compose has the same."""
    assert job_env() == {"SERVICE_ROLE": role("payments")}
    assert role("payments-migrations") != role("payments")
    services = compose()["services"]
    job, service = services["migrate"]["environment"], services["service"]["environment"]
    assert job["SERVICE_ROLE"] == role("payments")
    passwords = services["postgres"]["environment"]
    for found, secret, variable in (
        (service, "payments", "PAYMENTS_PASSWORD"),
        (job, "payments-migrations", "PAYMENTS_OWNER_PASSWORD"),
    ):
        url = urlsplit(found["DATABASE_URL"])
        assert (url.username, url.password) == (role(secret), passwords[variable])


@pytest.mark.parametrize(("kind", "name"), [("Deployment", "payments"), ("Job", JOB)])
def test_containers_may_do_nothing_that_they_need_not(kind: str, name: str) -> None:
    """Not root, no way to become it, no writable image, no capability, no token of the cluster."""
    spec = pod(kind, name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert f"USER {spec['securityContext']['runAsUser']}:" in dockerfile()
    assert spec["automountServiceAccountToken"] is False
    for each in spec["containers"]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["resources"]["limits"]["memory"]


def test_secrets_are_in_no_configuration() -> None:
    """Passwords are in the Secrets, and these hold no real ones."""
    for each in documents():
        if each["kind"] == "Secret":
            assert all("CHANGE-ME@" in value for value in each["stringData"].values())
        else:
            assert "://:" not in json.dumps(each)
            assert "CHANGE-ME" not in json.dumps(each)


def test_the_policy_lets_through_what_the_service_speaks_to() -> None:
    """The ports of the database and of the store, as the secrets name them, are open; the rest is not."""
    rules = manifest("NetworkPolicy", "payments")["spec"]["egress"]
    open_ports = {port["port"] for rule in rules for port in rule["ports"]}
    named = {int(port) for value in config().values() for port in re.findall(r"\.svc:(\d+)", value)}
    assert named == {5432, 6379}
    assert open_ports == named | {53, 443}
