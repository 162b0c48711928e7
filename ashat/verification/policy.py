"""Define what a verification asks of a release: which checks block, how long they take, how long evidence counts.

The operator's side of the bargain whose other side is the release's `raos.toml`. It is kept as a Prefect block
(`blocks.policy`), and stands whole in the evidence, so that evidence taken under another policy does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ashat.common.canonical_json import digest_of

CheckName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
_EARLIER_NAMES = {"signs_way_back": "presign_rollback"}
_STEPS_OF_SEVERITY = ("high", "medium", "low")


class Policy(BaseModel):
    """Hold what every release is verified by. Durations are whole seconds, shares are per mille."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warns: list[CheckName] = Field(
        default=[], title="Only warn", description="Checks whose failure is shown at the gate, but does not block."
    )
    skips: list[CheckName] = Field(
        default=[], title="Not run", description="Checks that are not run; the gate is marked, and needs a comment."
    )
    blocks_from: Literal["high", "medium"] = Field(
        default="high", title="Blocks from", description="The severity from which a finding fails its check."
    )
    time_limit: int = Field(
        default=60, ge=1, le=3600, title="Time limit", description="Seconds that a check may take, unless named below."
    )
    time_limits: dict[CheckName, Annotated[int, Field(ge=1, le=3600)]] = Field(
        default={}, title="Time limits", description="Seconds that a check may take, by its name."
    )
    evidence_max_age: int = Field(
        default=3 * 86400, ge=60, title="Evidence counts for", description="Seconds for which evidence may be approved."
    )
    rolls_back: bool = Field(
        default=True, title="Roll Public back", description="After a failure Public runs again what it ran before."
    )
    rehearses: bool = Field(
        default=True, title="Rehearse the rollback", description="Go forward, back and forward again on Public."
    )
    significance_per_mille: int = Field(
        default=10,
        ge=1,
        le=100,
        title="Significance",
        description="How unlikely a difference by chance must be before performance speaks of one, in 1/1000.",
    )
    max_slower_percent: int = Field(
        default=1000,
        ge=5,
        le=1000,
        title="At most so much slower",
        description="Percent that answers may take longer than before, whatever more raos.toml allows.",
    )
    max_growth_percent: int = Field(
        default=50,
        ge=5,
        le=1000,
        title="At most so much more",
        description="Percent by which p95 and p99, the start, the memory and the answers' sizes may grow.",
    )
    max_error_rate: int = Field(
        default=1000,
        ge=0,
        le=1000,
        title="At most so many failures",
        description="Requests in 1000 that may fail under load, whatever more raos.toml allows.",
    )
    min_free_connections: int = Field(
        default=3,
        ge=0,
        le=1000,
        title="Free connections",
        description="Connections to the database that must be left.",
    )
    certificate_days: int = Field(
        default=14,
        ge=1,
        le=365,
        title="Certificate warning",
        description="Days before the end of a certificate from which it is a warning.",
    )
    allow_days: int = Field(
        default=366,
        ge=1,
        le=3660,
        title="Allow-list",
        description="Days ahead that an entry of the allow-list may end at most without being pointed out.",
    )
    advisories: Literal["osv", "file", "off"] = Field(
        default="osv", title="Advisories", description="Where known vulnerabilities of dependencies are looked up."
    )
    osv_url: str = Field(
        default="https://api.osv.dev", title="OSV address", description="The API that answers for advisories = osv."
    )
    osv_file: str = Field(
        default="", title="OSV database", description="A zip or directory of OSV records, for advisories = file."
    )
    four_eyes: bool = Field(
        default=False,
        title="Four eyes",
        description="Who pushed an update may not be one of those who sign it. Needs approvers with keys of their own.",
    )
    presign_rollback: bool = Field(
        default=True,
        title="Sign the rollback beforehand",
        description="With a release, approvers sign the return to what it replaces. Off: a rollback waits for them.",
    )
    soak_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        title="Soak",
        description="Seconds of light load after the checks, over which health and failures are watched. 0: none.",
    )
    requires_self_test: bool = Field(
        default=True,
        title="Require the self-test",
        description="A check that no self-test of this version has proved counts as a warning.",
    )

    @model_validator(mode="before")
    @classmethod
    def _under_earlier_names(cls, data: Any) -> Any:
        return in_current_names(data) if isinstance(data, dict) else data

    @property
    def digest(self) -> str:
        """Compute the sha256 of its canonical JSON, which evidence is held against."""
        return digest_of(self.model_dump(mode="json"))

    def limit_of(self, check: str) -> int:
        """Return the seconds that the check of that name may take."""
        return self.time_limits.get(check, self.time_limit)

    def blocks(self, severity: str) -> bool:
        """Say whether a finding of that severity fails its check."""
        return _STEPS_OF_SEVERITY.index(severity) <= _STEPS_OF_SEVERITY.index(self.blocks_from)


def in_current_names(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a policy, such as evidence holds one, that an earlier version wrote."""
    return {_EARLIER_NAMES.get(name, name): value for name, value in policy.items()}
