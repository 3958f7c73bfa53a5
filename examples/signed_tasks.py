"""Sign tasks for a pool that takes no others. In this folder: `fleet up -d`, then

    fleet keys delegate simulator --to me --pool signed --requests-per-day 100 -o me.delegation
    python signed_tasks.py me.delegation

`fleet.toml` says `delegated = true` for the pool. `FLEET_DELEGATION=me.delegation` would sign all that is submitted.
"""

import sys

from fleet import submit_task
from fleet.errors import NotDelegated

if __name__ == "__main__":
    try:
        submit_task.delay("What is 6 * 7?", pool="signed")
    except NotDelegated as error:  # nothing is queued
        print(type(error).__name__)
    task = submit_task.apply_async(("What is 6 * 7?",), {"pool": "signed"}, delegation=sys.argv[1])
    result = task.get(timeout=60)
    print(result.answer, result.status)
