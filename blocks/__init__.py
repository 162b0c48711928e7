"""What an operator configures in Prefect: servers, sources, policies of verification and rollout, and channels."""

from blocks.mail import MailServer
from blocks.policy import VerificationPolicy
from blocks.rollout_policy import RolloutPolicy
from blocks.server import RaosServer
from blocks.source import Source

__all__ = ["MailServer", "RaosServer", "RolloutPolicy", "Source", "VerificationPolicy"]
