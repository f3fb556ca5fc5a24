"""deploy/helm: who reaches whom, by the NetworkPolicies alone."""

from typing import Any

import pytest

from tests.support.chart import VALUES, Rendered, component_of

SCALED = Rendered(VALUES["gpu"])


def reaches(chart: Rendered, component: str, target: str, port: int) -> bool:
    """Whether both policies let pods of `component` connect to this port of `target`."""
    pods = {name: labels for name, _, labels in chart.pods()}
    policies = {component_of(each): each["spec"] for each in chart.of_kind("NetworkPolicy")}

    def allowed(rules: list[dict[str, Any]], direction: str, other: str) -> bool:
        for rule in rules:
            peers = rule.get(direction)
            at_port = any(each["port"] == port for each in rule["ports"])
            selectors = [each["podSelector"]["matchLabels"] for each in peers or [] if "podSelector" in each]
            if at_port and (peers is None or any(each.items() <= pods[other].items() for each in selectors)):
                return True
        return False

    comes = allowed(policies[target].get("ingress", []), "from", component)
    return comes and allowed(policies[component].get("egress", []), "to", target)


def test_the_network_is_closed_as_composes_is() -> None:
    chart = Rendered(VALUES["cpu"])
    components = {name for name, _, _ in chart.pods()}
    assert components == {component_of(each) for each in chart.of_kind("NetworkPolicy")}
    edges = {
        (one, other)
        for one in components
        for other in components
        for name, port in chart.ports(other).items()
        if name != "metrics" and reaches(chart, one, other, port)
    }
    assert edges == {
        ("gateway", "redis"),
        ("worker", "redis"),
        ("webhooks", "redis"),
        ("gateway", "triton"),
        ("worker", "triton"),
        ("export", "triton"),
    }


@pytest.mark.parametrize(
    ("values", "outside"),
    [
        ({}, {"export"}),
        ({"settings": {"FETCH_URLS": True}}, {"export", "gateway"}),
        ({"settings": {"CALLBACKS": "true"}, "secrets": {"webhookSecret": {"name": "a"}}}, {"export", "webhooks"}),
        (VALUES["bucket"], {"export", "triton"}),
    ],
    ids=["defaults", "images by URL", "callbacks", "models from a bucket"],
)
def test_only_who_must_reaches_other_hosts(values: dict[str, Any], outside: set[str]) -> None:
    found = set()
    for policy in Rendered(values).of_kind("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"].get("egress", []):
            blocks = [each["ipBlock"] for each in rule.get("to", []) if "ipBlock" in each]
            found |= {component_of(policy)} if blocks else set()
            assert all("10.0.0.0/8" in each["except"] or "fc00::/7" in each["except"] for each in blocks)
            assert "to" in rule or {each["port"] for each in rule["ports"]} == {53}
    assert found == outside


def test_only_who_makes_spans_reaches_the_collectors() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}]
    found = {
        component_of(policy)
        for policy in SCALED.of_kind("NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        if rule == {"ports": [{"port": 4318}], "to": peers}
    }
    assert found == {"gateway", "worker", "webhooks"}


def test_only_monitoring_reads_metrics_and_keda_the_ledger() -> None:
    def spaces(rule: dict[str, Any]) -> set[str]:
        selectors = [
            each["namespaceSelector"]["matchLabels"] for each in rule.get("from", []) if "namespaceSelector" in each
        ]
        return {name for each in selectors for name in each.values()}

    for policy in SCALED.of_kind("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            if rule["ports"] == [{"port": SCALED.ports(component_of(policy)).get("metrics")}]:
                assert spaces(rule) == {"monitoring"}
            elif component_of(policy) == "redis":
                assert "keda" in spaces(rule)
