"""Checks, before anything runs, that each JSON Schema which a release declares is one."""

from __future__ import annotations

from collections.abc import Callable

from ashat.bundle.manifest import Manifest
from ashat.errors import BundleError
from ashat.raos_toml.load import NAME, declared_schemas, place_of
from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.schema_sandbox import SandboxError, SchemaSandbox, bundle_reader


def check_promises(raos: RaosToml, manifest: Manifest, read: Callable[[str], bytes]) -> None:
    """Check every schema that `raos` declares, and the files that they refer to; `read` gives a file of the bundle.

    Raises:
        BundleError: one is no JSON Schema, or refers to what is not in the bundle; with file, line and key.
    """
    with SchemaSandbox(bundle_reader(manifest, read)) as sandbox:
        for location, declared in declared_schemas(raos):
            try:
                sandbox.check(sandbox.schema(declared))
            except SandboxError as error:
                file = declared if isinstance(declared, str) else "this"
                raise BundleError(
                    f"{place_of(read(NAME), location)}: {file} cannot be used as a JSON Schema: {error}."
                ) from None
