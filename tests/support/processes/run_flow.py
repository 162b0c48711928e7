"""`python -m tests.support.processes.run_flow MODULE:FUNCTION PARAMETERS`: a flow run as a process of its own.

PARAMETERS are JSON. It ends with 0 where the flow did what it is for, and says in which state it ended.
"""

import importlib
import json
import os
import sys

from ashat.client.environment import for_others

if __name__ == "__main__":
    os.environ.update(for_others())  # as whatever starts a flow does
    module, _, name = sys.argv[1].partition(":")
    state = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]), return_state=True)
    print(state.name, state.message)
    sys.exit(0 if state.is_completed() or state.is_cancelled() else 1)
