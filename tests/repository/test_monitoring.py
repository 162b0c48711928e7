"""deploy/prometheus and deploy/grafana fit what is exposed: rules and dashboards name metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
import yaml

from ashat.node.core.metrics import Metrics
from ashat.node.omega.fleet.figures import families
from ashat.stats.exposition import Record, exposition
from scripts.dependencies import ROOT
from tests.support.needs import requires_promtool

PROMETHEUS, GRAFANA = ROOT / "deploy/prometheus", ROOT / "deploy/grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards/ashat.json").read_text("utf-8"))
RULES = yaml.safe_load((PROMETHEUS / "ashat.rules.yml").read_text("utf-8"))
_NAME = re.compile(r"[\w:]*ashat_[\w:]+")


@cache
def metrics() -> dict[str, str]:
    """Every metric that `deploy metrics` or a node exposes, by its name in queries, and what type it has."""
    text = exposition(Record([], [], [], datetime.now(UTC))).decode()
    found = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    for family in Metrics().registry.collect():
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family.type
    return found | {family.name: family.type for family in families().values()}


def queried() -> dict[str, set[str]]:
    """The names in the queries of the dashboard and of the rules, by where they stand."""
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    queries = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            queries[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            queries[variable["name"]] = variable["query"]["query"]
    return {where: set(_NAME.findall(query)) for where, query in queries.items()}


def test_every_metric_in_a_query_exists() -> None:
    recorded = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
    known = {*metrics(), *recorded}
    histograms = [name for name, kind in metrics().items() if kind == "histogram"]
    known |= {f"{name}{end}" for name in histograms for end in ("_bucket", "_sum", "_count")}
    found = queried()
    assert len(found) > 25
    assert {where: names - known for where, names in found.items() if names - known} == {}
    assert "target_result:ashat_deploy_deployments_ended:increase7d" in set().union(*found.values())
    used = set().union(*found.values())
    unseen = {"ashat_deploy_build_info", "ashat_node_received_bytes_total", "ashat_node_sent_bytes_total"}
    shown = {name for name in metrics() if any(each.startswith(name) or name in each for each in used)}
    watched = {name for name in metrics() if name.startswith(("ashat_deploy_", "ashat_omega_"))}
    assert watched - shown - unseen == set()


def test_an_unknown_metric_is_noticed() -> None:
    assert _NAME.findall("rate(ashat_deploy_nothing_total[5m])") == ["ashat_deploy_nothing_total"]
    assert _NAME.findall("a:ashat_x:sum > 0 or :ashat_y:max") == ["a:ashat_x:sum", ":ashat_y:max"]
    assert "ashat_deploy_nothing_total" not in metrics()


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} <= {"stat", "timeseries", "table"}
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    for path in GRAFANA.rglob("*.yml"):
        assert yaml.safe_load(path.read_text("utf-8"))["apiVersion"] == 1


def test_each_alert_says_what_it_means_and_what_to_do() -> None:
    alerts = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
    assert len(alerts) == 12
    for alert in alerts:
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
        assert alert["annotations"].keys() == {"summary", "description"}


@requires_promtool
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "ashat.rules.yml"),
        ("test", "rules", "ashat.rules.test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_prometheus_takes_the_rules_and_its_tests_of_them_pass(words: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    assert promtool
    done = subprocess.run([promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guide_lists_each_metric_with_its_type_and_labels() -> None:
    guide = (
        (ROOT / "docs/guide.md").read_text("utf-8").partition("### For Prometheus and Grafana")[2].partition("\n## ")[0]
    )
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in guide.splitlines() if line.startswith("| `")
    ]
    listed = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == {
        name: kind for name, kind in metrics().items() if name.startswith(("ashat_deploy_", "ashat_omega_"))
    }
