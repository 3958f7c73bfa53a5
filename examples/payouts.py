"""What accepted tasks earn the owner of the bots. In this folder: `fleet up -d`, then `python payouts.py`."""

import json
import subprocess
import sys
from decimal import Decimal

from fleet import submit_task


def due() -> Decimal:
    """Return what Alice is due, as `fleet payouts due` says."""
    command = [sys.executable, "-m", "fleet.cli.main", "payouts", "due", "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["due"]
    return sum((Decimal(row["tokens"]) for row in rows if row["payee"] == "alice"), Decimal(0))


before = due()
tasks = [submit_task.delay(f"What is {number} + {number}?", pool="paid") for number in range(5)]
accepted = sum(task.get(timeout=60).status == "ok" for task in tasks)
print(f"{accepted} accepted, {due() - before} more is due to alice")
