"""Prometheus' side: scrape config, alert rules, dashboard."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "yolo.json"
METRIC = re.compile(r"\b((?:yolo|nv|process)_\w+)")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool: it comes with Prometheus (Debian, Ubuntu: apt install prometheus)")
    done = subprocess.run([tool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_its_configuration() -> None:
    promtool("check", "config", "prometheus.yml")


def test_every_container_of_a_scaled_service_is_asked() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    services = yaml.safe_load((PROMETHEUS.parents[1] / "docker-compose.yml").read_text())["services"]
    for job in jobs:
        (found,) = job["dns_sd_configs"]
        assert (found["names"], found["type"]) == ([job["job_name"]], "A") and job["job_name"] in services


def test_alerts_fire_when_they_must_and_only_then() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tested_both_ways_and_explained() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    names = {rule["alert"] for rule in rules()}
    assert (fires, silent) == (names, names)
    explained = re.findall(r"^\| `(Yolo\w+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert set(explained) == names


def test_alerts_and_dashboard_read_only_documented_metrics() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`([a-z_]+)`", text))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [rule["expr"] for rule in rules()]
    queries += [target["expr"] for panel in panels for target in panel.get("targets", [])]
    read = {name for query in queries for name in METRIC.findall(query)}
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) if name.startswith("yolo_") else name for name in read}
    assert plain <= documented, plain - documented
