"""The probes of a node's program: its health, its processes, its modules, its database, its files, looked at now."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import ValidationError

from ashat.common.documents import load_json
from ashat.errors import BundleError, DocumentError, NotStoredError
from ashat.node.api.auth import require
from ashat.node.api.declared import refused
from ashat.node.app_process.health import Health, ProgramSilentError, ask
from ashat.node.app_process.process import Program
from ashat.node.app_process.user import program_user
from ashat.node.context import Context, NodeContext
from ashat.node.core.errors import ApiError
from ashat.node.database.throttle import DatabaseLook
from ashat.node.operations import records
from ashat.node.store.differences import compare_release
from ashat.node.store.releases import Release
from ashat.node.store.trees import read_tree
from ashat.protocol.messages import Scope, Tree
from ashat.protocol.probes import (
    DatabaseProbe,
    DatabaseProbeRequest,
    HealthProbe,
    ModuleReport,
    ModulesProbe,
    ProcessProbe,
    ReleaseProbe,
)
from ashat.raos_toml.load import NAME, SIZE_LIMIT, load_raos_toml

REPORT_BYTES = 1024 * 1024
MODULES = 10_000
COMPARE_SECONDS = 600.0
DEFAULT_SECONDS = 30.0
_WORDS = 2000
_DEFAULT_REPORT = "/modules"

Slot = Annotated[Literal["blue", "green"] | None, Query()]


def probes_router(context: NodeContext) -> APIRouter:
    """Make the routes. All of them take threads: what they ask may be slow."""
    router = APIRouter(prefix="/v1", tags=["Probes"], dependencies=[Depends(require(Scope.READ))])
    user = program_user(context.config)
    look = DatabaseLook(context.config.database, (user.uid, user.gid) if user else None)

    @router.get("/probes/health", responses=refused(404))
    def health(context: Context, slot: Slot = None) -> HealthProbe:
        """The program's health, asked now; of a node with two slots that of what has the traffic, or of one `slot`."""
        return look_at_health(context, slot)

    @router.get("/probes/process", responses=refused(404))
    def process(context: Context, slot: Slot = None) -> ProcessProbe:
        """What the machine knows of the program's processes, looked at now."""
        return program_of(context, slot).inspect()

    @router.get("/probes/release")
    def release(
        context: Context, seconds: Annotated[float, Query(ge=1, le=COMPARE_SECONDS)] = DEFAULT_SECONDS
    ) -> ReleaseProbe:
        """How the running release differs from its manifest, hashed now as it lies on disk, within so many seconds."""
        return compare_running(context, seconds)

    @router.get("/probes/modules", responses=refused(404))
    def modules(context: Context, slot: Slot = None) -> ModulesProbe:
        """The program's report of its modules, asked now."""
        return look_at_modules(context, slot)

    @router.post("/probes/database")
    def database(request: DatabaseProbeRequest) -> DatabaseProbe:
        """What the operator's DSN leads to, looked at now."""
        return look(request, context.config.app_data, context.program.client_ports)

    @router.get("/tree", responses=refused(404))
    def tree(context: Context) -> Tree:
        """The running release, hashed now as it lies on disk."""
        return running_tree(context)

    return router


def program_of(context: NodeContext, slot: str | None) -> Program:
    """Find the program that is asked for: the one of `slot`, or what runs.

    Raises:
        ApiError: this node has no slots (404).
    """
    if slot is None:
        return context.program
    found = context.program.slot(slot)
    if found is None:
        raise ApiError(404, "not_found", "This node has no slots: its program runs in one place ([slots] ports).")
    return found


def look_at_health(context: NodeContext, slot: str | None) -> HealthProbe:
    """Ask the program, or that of `slot`, whether it is well as the bundle that should run there.

    Raises:
        ApiError: this node has no slots (404).
    """
    program = program_of(context, slot)
    if context.config.slots.ports:
        return Health(context.config.app, program).ask(program.url, bundle=program.bundle())
    return context.health.ask(program.url, bundle=records.standing(context.db).bundle)


def look_at_modules(context: NodeContext, slot: str | None) -> ModulesProbe:
    """Ask the program, or that of `slot`, for its report of its modules.

    Raises:
        ApiError: this node has no slots (404).
    """
    program = program_of(context, slot)
    url = program.url
    if url is None:
        return ModulesProbe(ok=False, detail="no program runs")
    path = report_path(context.releases.linked() if slot is None else program.release())
    try:
        app = context.config.app
        answer = ask(url.rstrip("/") + path, timeout=app.health_timeout, limit=REPORT_BYTES, ca=app.ca_file)
    except ProgramSilentError as error:
        return ModulesProbe(ok=False, detail=f"{path}: {error}")
    if answer.status != 200:
        return ModulesProbe(ok=False, detail=f"{path} answers {answer.status}")
    return read_report(path, answer.body)


def report_path(release: Release | None) -> str:
    """Find where the running release reports its modules: `[modules] report` of its `raos.toml`, else `/modules`."""
    if release is None:
        return _DEFAULT_REPORT
    try:
        with open(release.path / NAME, "rb") as file:
            return load_raos_toml(file.read(SIZE_LIMIT + 1)).modules.report
    except (OSError, BundleError):
        return _DEFAULT_REPORT


def read_report(path: str, body: bytes) -> ModulesProbe:
    """Read the module report that the program sent: a list of modules, or an object that holds it as `modules`.

    One of more than `MODULES` modules is refused, and the first entry that is none ends the reading; what a module
    says is cut at 2,000 characters.
    """
    modules: list[ModuleReport] = []
    try:
        content: Any = load_json(body, limit=REPORT_BYTES)
        listed = content.get("modules") if isinstance(content, dict) else content
        if not isinstance(listed, list):
            return ModulesProbe(ok=False, detail=f"{path} answers no module report: it holds no list of modules")
        if len(listed) > MODULES:
            return ModulesProbe(ok=False, detail=f"{path} lists {len(listed)} modules; at most {MODULES} are read")
        for module in listed:
            modules.append(ModuleReport.model_validate(_cut(module)))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in (len(modules), *problem["loc"]))
        return ModulesProbe(ok=False, detail=f"{path} answers no module report ({where}: {problem['msg']})")
    except DocumentError as error:
        return ModulesProbe(ok=False, detail=f"{path} answers no module report: it is not JSON ({error})")
    return ModulesProbe(ok=True, modules=modules)


def _cut(module: Any) -> Any:
    if not isinstance(module, dict):
        return module
    return {key: value[:_WORDS] if isinstance(value, str) else value for key, value in module.items()}


def compare_running(context: NodeContext, seconds: float) -> ReleaseProbe:
    """Compare the running release, as it lies on disk, with its manifest, for as long as `seconds`."""
    release = context.releases.linked()
    if release is None or records.standing(context.db).bundle is None:
        return ReleaseProbe(detail="no release runs")
    try:
        manifest = context.store.manifest(release.bundle)
    except NotStoredError as error:
        return ReleaseProbe(detail=str(error))
    return compare_release(release.path, manifest, seconds).model_copy(update={"bundle": release.bundle})


def running_tree(context: NodeContext) -> Tree:
    """Compare the running release, as it lies on disk, with its manifest.

    Raises:
        ApiError: its manifest is gone, so that there is nothing to hold it against (404).
    """
    bundle = records.standing(context.db).bundle
    release = context.releases.linked()
    if bundle is None or release is None:
        return Tree(bundle=None, files={})
    try:
        found = read_tree(release.path, context.store.manifest(release.bundle))
    except NotStoredError as error:
        raise ApiError(404, "not_found", str(error)) from None
    return found.as_message(release.bundle)
