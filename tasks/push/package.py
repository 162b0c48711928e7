"""Pack a source tree into a bundle, and begin the deployment's record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ashat.bundle.artifacts.pack import Wanted, is_artifact, pack_artifact, parse_digest
from ashat.bundle.blob_ids import BlobIds
from ashat.bundle.compare import compare_with_commit, refuse_lfs_pointers
from ashat.bundle.git import GitInfo, Repository, branch_of, commit_time, git_info, newest_commits, resolve
from ashat.bundle.git_objects import ObjectStore
from ashat.bundle.pack import Packed, pack_directory, pack_git_ref
from ashat.bundle.stat_cache import StatCache
from ashat.common.failpoints import fault_point
from ashat.common.identifiers import check_update_id
from ashat.deployment.events import Created, Packaged
from ashat.deployment.state_machine import Stage, State
from ashat.errors import BundleError, UpdateExistsError
from ashat.ledger.ledger import Ledger, how_to_go_on
from ashat.protocol.messages import Source
from ashat.protocol.origins import Differences
from ashat.raos_toml.load import raos_toml_of
from ashat.raos_toml.schema import RaosToml
from ashat.rollouts.barriers import Release, refuse_circle
from ashat.settings import Settings
from ashat.trust.release.machine_keys import machine_signer
from ashat.trust.release.provenance import Attestation, attest_build
from ashat.trust.tuf.metadata import BUILDER
from blocks.source import load_source
from tasks.checks.kit.declared_schemas import check_promises
from tasks.push.route import find_route
from tasks.push.tracked import check_keys, tasks_of
from tasks.runtime.connections import this_run
from tasks.runtime.run import now, run_id
from tasks.runtime.step import step

_KNOWN_COMMITS = 500
_KNOWN_RUNS = 200


@dataclass(frozen=True)
class Origin:
    """Where a tree is: a directory, and the commit to pack of it ("": as it lies there); or an artifact, and the image
    (`ref`) and `subdirectory` to pack of it. `digest` is the sha256 that an artifact must have ("": any)."""

    name: str
    directory: Path
    ref: str = ""
    allow_dirty: bool = False
    subdirectory: str = ""
    digest: str = ""


@dataclass(frozen=True)
class PushRequest:
    """What a person wants pushed, and in which words. `resume` goes on with an interrupted push; `override_freeze` says
    why it goes although Public is closed. `tasks` are the keys of tasks that are named, beside those of the commits."""

    update_id: str
    description: str
    info: str
    public: str
    target: str
    by: str
    resume: bool = False
    override_freeze: str = ""
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A packed tree with what is known of it; `directory` is where it lay."""

    packed: Packed
    raos: RaosToml
    source: Source
    directory: Path
    commits: tuple[str, ...] = ()


@contextmanager
def source_tree(source: str, *, allow_dirty: bool) -> Iterator[Origin]:
    """Find the tree that the Source block `source` names; a clone is removed at the end of the `with` block."""
    block = load_source(source)
    with block.checkout() as tree:
        ref, part = ("" if block.remote else block.ref), (block.subdirectory if is_artifact(tree) else "")
        yield Origin(source, tree, ref, allow_dirty, part, parse_digest(block.digest))


def check_free(update_id: str, *, resume: bool) -> None:
    """Refuse an id that cannot be pushed now.

    Raises:
        UsageError: it is no update id.
        UpdateExistsError: it is in use, by another run than this one.
    """
    check_update_id(update_id)
    _mine_or_free(this_run().ledger, update_id, resume=resume)


def begun_by_this_run(update_id: str) -> State | None:
    """Find the deployment that this run began before Prefect retried it; `update_id` may be empty: any."""
    mine, ledger = run_id(), this_run().ledger
    if not mine:
        return None
    for summary in ledger.summaries(text=update_id, limit=_KNOWN_RUNS):
        state = ledger.find(summary["update_id"], summary["attempt"])
        if state is not None and state.run == mine:
            return state
    return None


def must_push(begun: State | None) -> bool:
    """Say whether a run has to push that began `begun` before Prefect retried it: if that is nothing, an interrupted
    push, or one that failed by itself. What people called off, a retry does not push again."""
    return begun is None or begun.stage is Stage.PLANNING or (begun.stage is Stage.FAILED and begun.may_be_pushed_again)


@step("package", description="Pack the tree: hash every file, and refuse what the servers could misread.")
def package(origin: Origin) -> Package:
    """Pack the tree or the artifact at `origin` into a bundle, as a task of a flow; raises as `pack`."""
    return pack(origin)


def pack(origin: Origin) -> Package:
    """Pack the tree or the artifact at `origin` into a bundle.

    Raises:
        BundleError: the tree is missing, empty, or breaks a bundle rule; it is not what its commit has, unless
            `allow_dirty`; its raos.toml is wrong, or a schema that it declares; an artifact has another digest.
    """
    packed, source = _packed(origin)
    try:
        raos = raos_toml_of(packed.manifest, packed.read_file)
        check_promises(raos, packed.manifest, packed.read_file)
    except BaseException:
        packed.close()
        raise
    commits = newest_commits(origin.directory, source.commit) if source.commit else ()
    return Package(packed, raos, source, origin.directory, commits)


def begin(request: PushRequest, package: Package) -> State:
    """Record that the push of `package` began, or go on with the push that this run, or the one to resume, began.

    Raises:
        UpdateExistsError: the id was taken meanwhile.
        SessionError: the interrupted push that is resumed carried other content to Public already.
    """
    route = find_route(request.public, request.target)
    created = Created(
        at=now(),
        by=request.by,
        description=request.description,
        info=request.info,
        target=request.target,
        public=request.public,
        target_title=route.target_title,
        public_title=route.public_title,
        run=run_id(),
    )
    manifest, ledger = package.packed.manifest, this_run().ledger
    refuse_barriers_in_a_circle(ledger, package.raos)
    state = _mine_or_free(ledger, request.update_id, resume=request.resume) or ledger.create(request.update_id, created)
    named = dict.fromkeys((*state.tasks, *check_keys(request.tasks)))
    tasks = tasks_of(ledger, request.target, package.directory, package.source, list(named))
    attestation = ledger.put_document("attestation", _attested(state, package, by=request.by, tasks=tasks))
    fault_point("push.attested")

    def packed(newest: State) -> Packaged | None:
        if newest.stage is not Stage.PLANNING or (newest.bundle, newest.tasks) == (manifest.digest, tasks):
            return None
        return Packaged(
            at=now(),
            by=request.by,
            bundle=manifest.digest,
            version=package.raos.raos.version,
            files=len(manifest.files),
            size=manifest.size,
            source=package.source,
            attestation=attestation,
            commits=package.commits,
            irreversible=package.raos.migrate is not None and not package.raos.migrate.reversible,
            installable_from=_origins(package.raos),
            tasks=tasks,
        )

    state = ledger.advance(request.update_id, state.attempt, packed)
    fault_point("push.packaged")
    return state


def _origins(raos: RaosToml) -> tuple[str, ...] | None:
    return None if raos.raos.installable_from is None else tuple(raos.raos.installable_from)


def refuse_barriers_in_a_circle(ledger: Ledger, raos: RaosToml) -> None:
    """Refuse a release from which one leads back to it that it can be installed from, by what was promoted before.

    Raises:
        PolicyError: there is such a circle; one line that names it.
    """
    version, origins = raos.raos.version, _origins(raos)
    if origins is None:
        return
    packed: dict[tuple[str, int], Release] = {}
    known: dict[str, Release] = {}
    for update_id, attempt, event in ledger.parsed(("packaged", "promoted")):
        if event["kind"] == "packaged":
            before = event.get("installable_from")
            packed[update_id, attempt] = Release(event.get("version", ""), frozenset(before) if before else None)
        elif (update_id, attempt) in packed:
            release = packed[update_id, attempt]
            known[release.version] = release
    refuse_circle([*known.values(), Release(version, frozenset(origins))])


def _attested(state: State, package: Package, *, by: str, tasks: tuple[str, ...]) -> Attestation:
    return attest_build(
        machine_signer(Settings().ensure_home(), BUILDER),
        bundle=package.packed.manifest.digest,
        update_id=state.update_id,
        attempt=state.attempt,
        source=package.source,
        pushed_by=by,
        tasks=tasks,
    )


def _mine_or_free(ledger: Ledger, update_id: str, *, resume: bool) -> State | None:
    last = ledger.find(update_id)
    if last is None or last.may_be_pushed_again:
        return None
    mine = last.run != "" and last.run == run_id()
    if mine or (resume and last.stage is Stage.PLANNING):
        return last
    if last.stage is Stage.PLANNING:
        raise UpdateExistsError(
            f"Deployment session '{update_id}' already exists ({last.stage.value}, begun by {last.pushed_by}). If its "
            f"push was interrupted, go on with it: deploy push … --resume, or call it off: deploy cancel {update_id}."
        )
    raise UpdateExistsError(how_to_go_on(last))


def _packed(origin: Origin) -> tuple[Packed, Source]:
    if is_artifact(origin.directory):
        return _pack_artifact(origin)
    if origin.digest:
        raise BundleError(f"{origin.directory} is a directory, which has no digest to be held against.")
    return _pack_commit(origin) if origin.ref else _pack_directory(origin)


def _pack_artifact(origin: Origin) -> tuple[Packed, Source]:
    settings = Settings()
    wanted = Wanted(origin.ref, origin.subdirectory, origin.digest)
    packed, artifact = pack_artifact(origin.directory, wanted, windows_names=settings.windows_names)
    try:
        refuse_lfs_pointers(packed, BlobIds.for_source(settings.ensure_home(), origin.directory))
    except BaseException:
        packed.close()
        raise
    return packed, Source(name=origin.name, artifact=artifact)


def _pack_commit(origin: Origin) -> tuple[Packed, Source]:
    commit = resolve(origin.directory, origin.ref)
    info = git_info(origin.directory)
    packed = pack_git_ref(origin.directory, commit, windows_names=Settings().windows_names)
    return packed, _source(origin, info, commit, branch_of(origin.directory, origin.ref), Differences())


def _pack_directory(origin: Origin) -> tuple[Packed, Source]:
    info = git_info(origin.directory)
    if info is not None and info.repository.bare:
        raise BundleError(f"{origin.directory} is no work tree of its repository: name a commit of it, with --ref.")
    settings = Settings()
    home = settings.ensure_home()
    if home.resolve().is_relative_to(origin.directory.resolve()):
        raise BundleError(f"ASHAT_HOME ({home}) is in the tree {origin.directory}, with keys: it is not to be shipped.")
    cache = StatCache.for_source(home, origin.directory)
    packed = pack_directory(origin.directory, cache=cache, windows_names=settings.windows_names)
    ids = BlobIds.for_source(home, origin.directory, info.repository.object_format if info else "sha1")
    if info is None or info.commit is None:
        refuse_lfs_pointers(packed, ids)
        return packed, _source(origin, info, None, info.branch if info else None, None)
    found = compare_with_commit(packed, origin.directory, info.repository, info.commit, ids)
    if found.count and not origin.allow_dirty:
        raise BundleError(
            f"{origin.directory} has uncommitted changes, against its commit {info.commit[:12]}: {found}. Commit them "
            "(--commit takes what git commit --all takes: nothing that git ignores or was told to leave alone), push "
            "the commit without them (--ref HEAD), or push the files as they are (--allow-dirty)."
        )
    return packed, _source(origin, info, info.commit, info.branch, found)


def _source(
    origin: Origin, info: GitInfo | None, commit: str | None, branch: str | None, differences: Differences | None
) -> Source:
    contains, cut = _contained(info.repository, commit) if info and commit else ((), False)
    return Source(
        name=origin.name,
        commit=commit,
        branch=branch,
        dirty=bool(differences and differences.count),
        differences=differences,
        who=info.author if info else "",
        contains=contains,
        history_cut=cut,
        committed=commit_time(origin.directory, commit) if commit else None,
    )


def _contained(repository: Repository, commit: str) -> tuple[tuple[str, ...], bool]:
    """Which commits of other deployments `commit` builds on, and whether there may be more that nobody can see here."""
    known = {summary["commit"] for summary in this_run().ledger.summaries(limit=_KNOWN_COMMITS)} - {None}
    if not known:
        return (), repository.shallow is not None
    with ObjectStore(repository) as store:
        history = store.history(commit)
        found = known.intersection(history or ())
    return tuple(sorted(found)), history is None or repository.shallow is not None
