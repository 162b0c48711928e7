"""The dependency that lets a request through only with a token of the right scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from ashat.node.access.tokens import SCOPES, Token
from ashat.node.context import Context, context_of
from ashat.node.core.db import now
from ashat.node.core.errors import ApiError
from ashat.protocol.messages import Role, Scope, TokenRole

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token from `ashat-node token add`.")


_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def require(scope: Scope) -> Callable[..., Token]:
    """Make a dependency that is the token asking; it refuses who has none (401), or none with `scope` (403)."""

    def allowed(request: Request, _: _Bearer = None) -> Token:
        return _allowed(request, scope)

    return allowed


def require_change(request: Request, context: Context, _: _Bearer = None) -> Token:
    """Require, as `require` does, the scope that changes what this server runs: `promote` on OMEGA, else `push`."""
    return _allowed(request, Scope.PROMOTE if context.config.role is Role.OMEGA else Scope.PUSH)


def _allowed(request: Request, scope: Scope) -> Token:
    token: Token | None = request.state.token
    if token is None:
        raise ApiError(
            401,
            "unauthenticated",
            "The token is missing or unknown here; give one that `ashat-node token add` printed on this server.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if token.expired(now()):
        raise ApiError(
            401,
            "unauthenticated",
            f"The token {token.id} expired at {token.expires:%Y-%m-%d %H:%M:%S} UTC; give the one in its place, or "
            "make another with `ashat-node token add` on this server.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    if not token.allows(scope):
        have = ", ".join(token.scopes)
        takes = "" if scope is Scope.READ else f", such as the role '{_who(request, scope)}' has"
        raise ApiError(403, "forbidden", f"This needs a token with the scope '{scope}'{takes}; this one has: {have}.")
    return token


def _who(request: Request, scope: Scope) -> TokenRole:
    role = context_of(request).config.role
    dev = SCOPES[TokenRole.DEV][role]
    return TokenRole.DEV if scope in dev else TokenRole.OWNER
