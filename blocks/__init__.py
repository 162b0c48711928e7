"""What an operator configures in Prefect: servers, sources, policies (verification, rollout), channels and trackers."""

from blocks.mail import MailServer
from blocks.policy import VerificationPolicy
from blocks.rollout_policy import RolloutPolicy
from blocks.server import RaosServer
from blocks.source import Source
from blocks.trackers import GitHubTracker, GitLabTracker, JiraTracker, WebhookTracker

__all__ = [
    "GitHubTracker",
    "GitLabTracker",
    "JiraTracker",
    "MailServer",
    "RaosServer",
    "RolloutPolicy",
    "Source",
    "VerificationPolicy",
    "WebhookTracker",
]
