"""Run a flow as `prefect.engine` does, without a traceback where the flow itself returned that it failed or was
cancelled; run as a module.

Prefect's own engine raises what such a state stands for once all is done, and logs that as an unexpected exception.
"""

from __future__ import annotations

import functools
import runpy
import sys

import prefect.flow_engine

_ENGINE = "prefect.engine"


def main() -> None:
    """Run the flow run that `PREFECT__FLOW_RUN_ID` names, in this process."""
    prefect.flow_engine.run_flow = functools.partial(prefect.flow_engine.run_flow, return_type="state")
    sys.argv = [_ENGINE]
    sys.modules.pop(_ENGINE, None)  # it is run as a script
    runpy.run_module(_ENGINE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
