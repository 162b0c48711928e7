"""Access to a node: tokens, their scopes and roles."""
