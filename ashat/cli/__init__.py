"""The `deploy` command, and the control plane that it runs. The only part of ashat/ that imports flows."""
