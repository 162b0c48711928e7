"""What a release promises by a schema is looked at before it is pushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ashat.bundle.pack import pack_directory
from ashat.errors import BundleError
from ashat.raos_toml.load import NAME, raos_toml_of
from tasks.checks.kit.declared_schemas import check_promises
from tasks.checks.kit.schema_sandbox import SCHEMA_LIMIT
from tasks.push.package import Origin, package
from tests.support.fakes.scripted_program import bundle

LEAST = '[raos]\nname = "RaOS"\nversion = "1"\n'


def promises(schema: str, **files: str) -> str:
    """How a bundle is refused whose only endpoint has that schema, in line 7; "" if it is not."""
    toml = LEAST + f'[[endpoint]]\nname = "a"\npath = "/a"\nschema = {schema}\n'
    manifest, contents = bundle(
        toml, {name.replace("_", ".") if "/" not in name else name: files[name] for name in files}
    )
    try:
        check_promises(raos_toml_of(manifest, contents.__getitem__), manifest, contents.__getitem__)
    except BundleError as error:
        message = str(error)
        assert message.startswith("raos.toml, line 7: endpoint[1].schema: "), message
        assert "\n" not in message
        return message
    return ""


def test_a_schema_is_looked_at_before_it_is_pushed() -> None:
    assert promises('{ type = "object" }') == ""
    assert promises('"a.json"', a_json='{"items": {"$ref": "b.json#/x"}}', b_json='{"x": true}') == ""
    assert promises('"a.json"', a_json='{"$id": "https://x.example/", "$defs": {"y": {}}, "$ref": "#/$defs/y"}') == ""
    assert promises('"a.json"', a_json='{"const": {"$ref": "nowhere"}}') == ""


@pytest.mark.parametrize(
    ("schema", "files", "said"),
    [
        ('"a.json"', {}, "the bundle has no file 'a.json'; add it, or correct the path."),
        ('"a.json"', {"x/a.json": "{}"}, "the bundle has no file 'a.json'; did you mean 'x/a.json'?"),
        (
            '"a.json"',
            {"a_json": "{\n\n]"},
            "a.json is no JSON that can be read: Expecting property name enclosed in double quotes: line 3",
        ),
        ('"a.json"', {"a_json": "[]"}, "a.json cannot be used as a JSON Schema: a JSON Schema is an object."),
        ('"a.json"', {"a_json": "[" * 100_000}, "is nested too deeply"),
        ('"a.json"', {"a_json": '{"x": "' + "y" * SCHEMA_LIMIT + '"}'}, f"at most {SCHEMA_LIMIT} are read"),
        ('"a.json"', {"a_json": '{"minimum": "1"}'}, "/minimum: '1' is not of type 'number'"),
        ('"a.json"', {"a_json": '{"$schema": "https://x.example/s"}'}, "is no dialect that is known"),
        ('{ type = "objekt" }', {}, "/type: 'objekt' is not valid"),
        ('{ pattern = "(" }', {}, "/pattern: '(' is not a 'regex'"),
        ('{ "$ref" = "#/$defs/x" }', {}, "it refers to /$defs/x, which is not there"),
        ('{ "$ref" = "b.json" }', {}, "b.json is not in the bundle"),
        ('{ "$ref" = "b.json" }', {"b_json": '{"required": 1}'}, "b.json: /required: 1 is not of type 'array'"),
        ('{ items = { "$ref" = "https://x.example/s" } }', {}, "nothing is fetched: put it into the bundle"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_its_line(schema: str, files: dict[str, str], said: str) -> None:
    assert said in promises(schema, **files)


def test_the_samples_own_promises_can_be_kept() -> None:
    with pack_directory(Path(__file__).parents[3] / "examples" / "raos") as packed:
        check_promises(raos_toml_of(packed.manifest, packed.read_file), packed.manifest, packed.read_file)


def test_packaging_refuses_what_cannot_be_promised(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(LEAST + '[[check]]\nname = "a"\npath = "/a"\nschema = "a.json"\n', "utf-8")
    with pytest.raises(BundleError, match=r"^raos\.toml, line 7: check\[1\]\.schema: the bundle has no file 'a\.json'"):
        package.fn(Origin("raos", tmp_path))
    (tmp_path / "a.json").write_text('{"type": 1}', "utf-8")
    with pytest.raises(
        BundleError, match=r"line 7: check\[1\]\.schema: a\.json cannot be used as a JSON Schema: /type: 1"
    ):
        package.fn(Origin("raos", tmp_path))
    (tmp_path / "a.json").write_text('{"type": "object"}', "utf-8")
    assert package.fn(Origin("raos", tmp_path)).raos.checks[0].answer_schema == "a.json"
