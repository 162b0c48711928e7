"""Send e-mail by a mail server of one's own: Prefect has a block for SendGrid's alone."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote, urlencode

from prefect.blocks.notifications import AbstractAppriseNotificationBlock
from pydantic import Field, SecretStr

Security = Literal["starttls", "tls", "none"]


class MailServer(AbstractAppriseNotificationBlock):
    """
    A mail server (SMTP) by which people are told.

    Example:
        Load a stored mail server and tell somebody:
        ```python
        from blocks.mail import MailServer

        MailServer.load("BLOCK_NAME").notify("It awaits approval.", "UPD-2026-11")
        ```
    """

    _block_type_name = "RaOS Mail Server"
    _block_type_slug = "raos-mail-server"
    _description = "A mail server by which people are told of deployments."

    host: str = Field(title="Host", description="The name of the mail server.")
    port: int = Field(default=587, ge=1, le=65535, title="Port", description="Its port.")
    security: Security = Field(
        default="starttls", title="Security", description="How the connection is encrypted; none only on one machine."
    )
    user: str = Field(default="", title="User", description="The user that signs in; empty: nobody does.")
    password: SecretStr = Field(default=SecretStr(""), title="Password", description="The user's password.")
    sender: str = Field(title="From", description="The address that mails come from.")
    recipients: list[str] = Field(title="To", description="The addresses that are told.")

    def block_initialization(self) -> None:
        """Hand Apprise the address that says all of it, in its own form (`mailto://`)."""
        account = (
            f"{quote(self.user, safe='')}:{quote(self.password.get_secret_value(), safe='')}@" if self.user else ""
        )
        mode = {"starttls": {"mode": "starttls"}, "tls": {"mode": "ssl"}, "none": {}}[self.security]
        scheme = "mailto" if self.security == "none" else "mailtos"
        # Plain text: in HTML, what somebody wrote into a description would be markup.
        more = {"format": "text", "smtp": self.host, "from": self.sender, "to": ",".join(self.recipients), **mode}
        self._start_apprise_client(SecretStr(f"{scheme}://{account}{self.host}:{self.port}?{urlencode(more)}"))
