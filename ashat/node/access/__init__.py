"""Who may ask a node for what: tokens, their scopes and roles."""
