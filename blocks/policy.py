"""Keep in a Prefect block what a verification asks of a release, so that an operator can change it in the UI."""

from __future__ import annotations

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field

from ashat.errors import NotConfiguredError
from ashat.verification.policy import Policy
from blocks.find import find_block

DEFAULT = "default"


class VerificationPolicy(Block, Policy):
    """
    Which checks block and which warn, their time limits, and for how long evidence may be approved.

    Attributes:
        credentials: What `auth` in raos.toml names: a header value by name, such as `Bearer ...`.

    Example:
        Load a stored policy and see which checks only warn:
        ```python
        from blocks.policy import VerificationPolicy

        print(VerificationPolicy.load("BLOCK_NAME").policy().warns)
        ```
    """

    _block_type_name = "RaOS Verification Policy"
    _block_type_slug = "raos-verification-policy"
    _description = "Which checks block a release, which warn, their limits, and for how long evidence counts."

    credentials: SecretDict = Field(
        default=SecretDict({}),
        title="Credentials",
        description="The value of the Authorization header for each name that raos.toml uses as auth.",
    )

    def policy(self) -> Policy:
        """Return the policy without its secrets, as it stands in the evidence."""
        return Policy.model_validate({name: getattr(self, name) for name in Policy.model_fields})

    def secrets(self) -> dict[str, str]:
        """Return the credentials in clear text."""
        return {name: str(value) for name, value in self.credentials.get_secret_value().items()}


def load_policy(name: str = DEFAULT) -> VerificationPolicy:
    """Load the policy block of that name; without a block named `default`, the built-in policy.

    Raises:
        NotConfiguredError: there is none of that name.
    """
    found = find_block(VerificationPolicy, name)
    if found is None and name == DEFAULT:
        return VerificationPolicy()
    if found is None:
        raise NotConfiguredError(
            f"No verification policy '{name}' is configured: deploy configure policy {name} <file>, or make a block "
            "RaOS Verification Policy of that name in Prefect's UI."
        )
    return found
