"""The node's OpenAPI document says all that the node answers, in every role, whoever asks; nothing makes it fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.common.identifiers import new_key
from ashat.protocol.messages import Role
from tests.support.processes.node import ROOT, NodeProcess
from tests.support.processes.omega import licence

SUPPORT = ROOT / "tests" / "support"
EXAMPLES = 2
SECONDS = 300
ALWAYS = {"400", "408", "500", "503", "507"}
# Each role is asked with a token, with nothing, and where there are licences with one. Without a token most is refused
# before it is looked at, so what is tried is less.
TRIALS = {
    (Role.PUBLIC, "token"): [],
    (Role.PUBLIC, "nothing"): ["--mode", "positive"],
    (Role.OMEGA, "token"): ["--exclude-path-regex", "/v1/mainframe/"],
    (Role.OMEGA, "licence"): ["--include-path-regex", "/v1/mainframe/"],
    (Role.OMEGA, "nothing"): ["--mode", "positive"],
    (Role.MAINFRAME, "token"): [],
    (Role.MAINFRAME, "nothing"): ["--mode", "positive"],
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Role, NodeProcess]]:
    place = tmp_path_factory.mktemp("openapi")
    with ExitStack() as stack:
        yield {
            role: stack.enter_context(
                NodeProcess(
                    place / role,
                    role=role,
                    **({"omega": "http://127.0.0.1:1", "licence_key": new_key()} if role is Role.MAINFRAME else {}),
                )
            )
            for role in Role
        }


def test_schemathesis_finds_no_failure_and_nothing_undeclared(
    nodes: dict[Role, NodeProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nodes[Role.OMEGA].client() as client:
        key = licence(client)

    def run(trial: tuple[Role, str]) -> tuple[str, int, str]:
        node, directory = nodes[trial[0]], tmp_path / "-".join(trial)
        known = {"token": f"Bearer {node.token()}", "licence": f"Licence {key}"}.get(trial[1])
        return ", ".join(trial), *_schemathesis(node, known, directory, TRIALS[trial])

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(run, TRIALS))
    for name, _, printed in results:
        with capsys.disabled():
            print(f"\nschemathesis, {name}: {_counts(printed)}")
    failed = [f"{name}:\n{printed}" for name, code, printed in results if code != 0]
    assert not failed, "\n\n".join(failed)
    for node in nodes.values():
        assert "Traceback" not in node.log()
        assert not re.search(r" 50[0-6] \d+ B in", node.log())


def _schemathesis(
    node: NodeProcess, authorization: str | None, directory: Path, words: Sequence[str]
) -> tuple[int, str]:
    directory.mkdir()
    words = ["--config-file", str(SUPPORT / "schemathesis.toml"), "run", f"{node.url}/openapi.json", *words]
    words += ["--max-examples", str(EXAMPLES), "--generation-deterministic", "--no-color", "--continue-on-failure"]
    words += ["--suppress-health-check", "all"]
    words += ["-H", f"Authorization: {authorization}"] if authorization else []
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _counts(printed: str) -> str:
    phases = re.findall(r"(Coverage|Fuzzing|Stateful) \(in", printed)
    cases = re.search(r"\d+ generated.*", printed)
    return f"{cases.group() if cases else 'nothing'}; phases {', '.join(phases)}"


def _calls(node: NodeProcess) -> dict[str, dict[str, Any]]:
    document = json.loads(httpx.get(f"{node.url}/openapi.json").content)
    return {f"{method} {path}": call for path, calls in document["paths"].items() for method, call in calls.items()}


@pytest.mark.parametrize("role", Role)
def test_every_call_declares_how_it_may_be_refused(nodes: dict[Role, NodeProcess], role: Role) -> None:
    calls = _calls(nodes[role])
    for name, call in calls.items():
        declared = set(call["responses"])
        assert declared >= ALWAYS, name
        assert ("security" in call) == ({"401", "403"} <= declared), name
        assert ("requestBody" in call) <= ({"413", "422"} <= declared), name
        for status in declared:
            if status >= "400":
                schema = call["responses"][status]["content"]["application/json"]["schema"]
                old = call["tags"] == ["The old protocol"] and "error" in schema.get("required", ())
                assert old or schema["$ref"].endswith("/Refusal")
    assert "423" in calls["put /v1/lease"]["responses"]
    assert "409" in calls["put /v1/operations/{operation_id}"]["responses"]
    assert {"206", "304", "416"} <= set(calls["get /v1/objects/{digest}"]["responses"])


def test_what_is_not_there_says_what_is(nodes: dict[Role, NodeProcess]) -> None:
    url = nodes[Role.PUBLIC].url
    for path, allowed in {
        "/v1/lease": "DELETE, PUT",
        "/v1/objects/missing": "POST",
        "/v1/objects/fetch": "POST",
        f"/v1/objects/{'a' * 64}": "GET, PUT",
    }.items():
        answer = httpx.request("PATCH", url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
    assert httpx.get(f"{url}/v1/state/").status_code == 404


def test_the_page_of_the_calls_loads_nothing(nodes: dict[Role, NodeProcess]) -> None:
    answer = httpx.get(f"{nodes[Role.OMEGA].url}/docs")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"https?://|<script|<link|<img|\bsrc\s*=|@import|url\(", answer.text)
    assert all(call.split()[1] in answer.text for call in _calls(nodes[Role.OMEGA]))
    assert httpx.get(f"{nodes[Role.OMEGA].url}/redoc").status_code == 404
