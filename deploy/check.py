"""Asks a running Prometheus whether all targets are up and each query of the dashboard and of the alerts has an answer.

python3 deploy/check.py [http://127.0.0.1:9090]; exit status 1 when something is missing. Standard library only.
"""

import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DASHBOARD = HERE / "grafana" / "dashboards" / "yolo.json"
NEEDS_GPU = re.compile(r"\bnv_gpu_")


def ask(base_url: str, path: str, **parameters: str) -> Any:
    url = f"{base_url}{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def queries() -> list[tuple[str, str]]:
    """(panel, PromQL) of every query of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
        for panel in panels
        for target in panel.get("targets", [])
    ]


def main(base_url: str = "http://127.0.0.1:9090") -> int:
    missing = 0
    for target in ask(base_url, "/api/v1/targets", state="active")["activeTargets"]:
        missing += target["health"] != "up"
        print(f"{target['health']:8} {target['labels']['job']:10} {target['scrapeUrl']} {target['lastError']}")
    for panel, query in queries():
        found = ask(base_url, "/api/v1/query", query=query)["result"]
        values = ", ".join(sorted({row["value"][1] for row in found})[:4])
        excused = not found and bool(NEEDS_GPU.search(query))
        missing += not found and not excused
        print(f"{len(found) or ('no GPU' if excused else 'NO DATA'):>8} {panel:32} {values}")
    for group in ask(base_url, "/api/v1/rules")["groups"]:
        for rule in group["rules"]:
            missing += rule["health"] != "ok"
            print(f"{rule['health']:>8} {rule['name']:32} {rule.get('state', '')}")
    print(f"{missing} missing")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
