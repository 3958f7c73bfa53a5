"""Try a persona on half of a pool's tasks. In this folder: `fleet up -d`, then `python rollout.py`."""

import json
import subprocess
import sys

from fleet import submit_task


def fleet(*words: str) -> dict:
    command = [sys.executable, "-m", "fleet.cli.main", *words, "--json"]  # `fleet ...`
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


fleet("rollout", "research", "--persona", "conservative", "--share", "50%")
while not (so_far := fleet("rollout", "show", "research"))["new_tasks"]:
    tasks = [submit_task.delay(f"What is {n} * 7?", pool="research") for n in range(20)]
    answers = [one.get(timeout=60) for one in tasks]
print(so_far["word"], "and no task fails:", {one["status"] for one in answers})

print("\n".join(fleet("rollout", "finish", "research")["toml"]))  # the lines for fleet.toml
