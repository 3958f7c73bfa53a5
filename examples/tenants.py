"""Two customers share a pool: the one that comes later has its turns. `fleet up -d`, then `python tenants.py`."""

import json
import subprocess
import sys

from fleet import submit_many, submit_task


def waiting() -> dict[str, int]:
    command = [sys.executable, "-m", "fleet.cli.main", "tenants", "--json"]  # `fleet tenants`
    told = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {row["tenant"]: row["waiting"] for row in told["tenants"]}


ids = list(submit_many({"prompt": f"What is {n} * 7?", "pool": "research", "tenant": "acme"} for n in range(3000)))
later = [submit_task.delay(f"What is {n} + 7?", pool="research", tenant="zeta") for n in range(5)]
print("zeta:", [task.get(timeout=120)["answer"] for task in later])
print("acme's tasks still wait:", waiting().get("acme", 0) > len(ids) / 2)
