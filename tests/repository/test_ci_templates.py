"""The templates for CI systems call one script, give it what it reads and nothing that it does not."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.dependencies import ROOT

CI = ROOT / "deploy/ci"
SCRIPT = (CI / "ship.sh").read_text("utf-8")
READ = set(re.findall(r"\b(ASHAT_CI_[A-Z_]+|PREFECT_API_URL|ASHAT_LEDGER_URL)\b", SCRIPT.partition("set -eu")[2]))
ACTION: dict[str, Any] = yaml.safe_load((CI / "github/action.yml").read_text("utf-8"))
HEAD, COMPONENT = yaml.safe_load_all((CI / "gitlab/templates/ashat-deploy.yml").read_text("utf-8"))
PIPELINE = (CI / "Jenkinsfile").read_text("utf-8")


def test_the_action_is_a_composite_one_whose_inputs_are_all_used() -> None:
    # https://docs.github.com/actions/reference/workflows-and-actions/metadata-syntax
    assert ACTION.keys() == {"name", "description", "inputs", "outputs", "runs"}
    (step,) = ACTION["runs"]["steps"]
    assert ACTION["runs"]["using"] == "composite"
    assert step.keys() == {"id", "shell", "run", "env"}
    text = yaml.safe_dump(step)
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == ACTION["inputs"].keys()
    assert "inputs." not in step["run"], "an input in the script's text could be a command"
    assert set(step["env"]) - {"PREFECT_API_AUTH_STRING"} == READ - {"ASHAT_CI_RESULT"}
    assert (CI / "github" / step["run"].strip('"').replace("$GITHUB_ACTION_PATH/", "")).resolve() == CI / "ship.sh"
    assert os.access(CI / "ship.sh", os.X_OK)
    for name, given in ACTION["inputs"].items():
        assert given["description"], name
        assert ("default" in given) != given.get("required", False), name
    told = re.search(r"for name in \(([^)]*)\)", SCRIPT)
    assert told
    assert set(re.findall(r'"(\w+)"', told[1])) == ACTION["outputs"].keys()


def test_the_component_carries_the_script_and_uses_each_of_its_inputs() -> None:
    # https://docs.gitlab.com/ci/components/
    job = COMPONENT["ashat-deploy"]
    carried, called = job["script"]
    assert carried.partition("<<'SHIP'\n")[2].removesuffix("SHIP\n") == SCRIPT
    assert called == 'sh "$CI_PROJECT_DIR/.ashat-ship.sh"'
    used = re.findall(r"\$\[\[ inputs\.([\w-]+) \]\]", yaml.safe_dump({**job, "script": []}))
    assert set(used) == HEAD["spec"]["inputs"].keys()
    secrets = {"ASHAT_CI_BUILDER_KEY", "ASHAT_LEDGER_URL"}
    assert set(job["variables"]) == READ - secrets - {"ASHAT_CI_RESULT"}


def test_the_pipeline_gives_the_script_what_it_reads_and_secrets_as_credentials() -> None:
    given = dict(re.findall(r"^\s+([A-Z_]+) = (.+)$", PIPELINE, re.MULTILINE))
    assert given.keys() - {"PREFECT_API_AUTH_STRING"} <= READ
    for name in ("ASHAT_CI_BUILDER_KEY", "PREFECT_API_AUTH_STRING", "ASHAT_LEDGER_URL"):
        assert given[name].startswith("credentials(")
    assert set(re.findall(r"params\.(\w+)", PIPELINE)) == set(re.findall(r"string\(name: '(\w+)'", PIPELINE))
    assert PIPELINE.count("{") == PIPELINE.count("}")
    assert "sh 'deploy/ci/ship.sh'" in PIPELINE, "in single quotes, so that Groovy puts no secret into the script"


@pytest.mark.parametrize("missing", ["ASHAT_CI_ID", "ASHAT_CI_DESCRIPTION", "PREFECT_API_URL", "ASHAT_LEDGER_URL"])
def test_what_is_not_said_is_asked_for_in_a_line(missing: str, tmp_path: Path) -> None:
    given = dict.fromkeys(("ASHAT_CI_ID", "ASHAT_CI_DESCRIPTION", "PREFECT_API_URL", "ASHAT_LEDGER_URL"), "x")
    del given[missing]
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **given}
    done = subprocess.run([CI / "ship.sh"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert missing in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
