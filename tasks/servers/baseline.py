"""Note what the release that Public runs answers, and what its database holds, before another one takes its place."""

from __future__ import annotations

import ssl

import httpx

from ashat.bundle.manifest import Manifest
from ashat.client.node import NodeClient
from ashat.deployment.state import PreviousRelease
from ashat.deployment.state_machine import State
from ashat.errors import AshatError, BundleError
from ashat.raos_toml.load import raos_toml_of
from ashat.raos_toml.schema import RaosToml
from blocks.policy import load_policy
from blocks.server import RaosServer
from tasks.checks.kit.answers import askable, observe
from tasks.checks.kit.base import CheckContext
from tasks.checks.kit.baseline import KIND, Baseline, BaselineError
from tasks.checks.kit.kept_values import KeptValues
from tasks.checks.kit.rows import count_rows
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now

# Users of Public wait no longer than this for the push because of it.
SECONDS = 15.0


def note_baseline(d: Deployment, bundle: str) -> str | None:
    """Note how the release `bundle`, which Public runs, answers and what its database holds; the digest of that.

    It is no condition of a push: where it cannot be noted, a line says why, and None is returned.
    """
    try:
        context = _context(d, bundle)
        if context is None:
            return None
        noted = take_baseline(context)
        return d.ledger.put_document(KIND, noted.document())
    except AshatError as error:
        reporter().say(f"What {d.the_public} answers now was not noted, so it is not compared later: {error}")
        return None


def take_baseline(context: CheckContext) -> Baseline:
    """Request the endpoints of the release that runs now, for at most `SECONDS`; count its rows; write its values.

    The values are those that it declares as `[[kept]]`.
    """
    seen = observe(context, askable(context.raos), SECONDS)
    count, why = count_rows(context, context.raos.database)
    values = KeptValues()
    values.write(context, context.raos, "the release before")
    return Baseline(
        bundle=context.bundle,
        at=now().isoformat(),
        answers=seen.answers,
        unasked=seen.unasked,
        without_credential=seen.without_credential,
        database=count,
        uncounted=why,
        written=values.written,
    )


def baseline_of(d: Deployment, state: State, before: PreviousRelease) -> Baseline | None:
    """Find what was noted of the release `before` when it last ran before `state`'s update; None: nothing was.

    Where another update ran in between, it was noted before that one came.
    """
    looked: set[tuple[str, int]] = set()
    waiting = [state]
    while waiting:
        update = waiting.pop()
        looked.add((update.update_id, update.attempt))
        for bundle, digest in reversed(update.baselines):
            if bundle == before.bundle:
                try:
                    return Baseline.read(d.ledger.document(digest))
                except BaselineError:
                    return None
        for ran in update.public_ran:
            found = d.ledger.find(ran.update_id, ran.attempt) if ran.update_id else None
            if found is not None and (found.update_id, found.attempt) not in looked:
                waiting.append(found)
    return None


def promises_of(node: NodeClient, manifest: Manifest) -> RaosToml | None:
    """Read what a release on `node` promises; None if it has no raos.toml that this version can read."""
    try:
        return raos_toml_of(manifest, lambda path: node.file_bytes(manifest, path))
    except BundleError:
        return None  # a release from before raos.toml had to be there: it promised nothing that could be taken back


def program_trust(server: RaosServer) -> ssl.SSLContext:
    """Trust the usual certificate authorities for a program on https, and the one that its server's block names."""
    trusted = httpx.create_ssl_context()
    if server.ca:
        trusted.load_verify_locations(cadata=server.ca)
    return trusted


def _context(d: Deployment, bundle: str) -> CheckContext | None:
    """Gather what is asked of the release that runs now; None where it promises nothing, or has no address."""
    public, url = d.public, d.public.state().app.url
    manifest = public.manifest(bundle)
    raos = promises_of(public, manifest)
    if url is None or raos is None:
        return None
    return CheckContext(
        public=public,
        app_url=url,
        bundle=bundle,
        manifest=manifest,
        raos=raos,
        source=lambda path: public.file_bytes(manifest, path),
        credentials=load_policy(d.state.policy).secrets(),
        tls=program_trust(d.public_server) if url.startswith("https:") else None,
    )
