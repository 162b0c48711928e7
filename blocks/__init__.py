"""What an operator configures in Prefect: the servers, the sources, and the verification policies."""

from blocks.policy import VerificationPolicy
from blocks.server import RaosServer
from blocks.source import Source

__all__ = ["RaosServer", "Source", "VerificationPolicy"]
