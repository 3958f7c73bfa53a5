"""A thousand random transfers, built by tronweb and by us from the same input."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

from fleet.config.payouts.tables import tron_address
from fleet.payouts.keyfiles import addresses_of

SCRIPT = Path(__file__).with_name("tronweb.cjs")


def asked(count: int, seed: int) -> list[dict[str, Any]]:
    """Return random transfers: amounts up to 2^255, small and large times."""
    luck = random.Random(seed)
    made = []
    for _ in range(count):
        key = luck.randbytes(32)
        token, to = (tron_address(b"\x41" + luck.randbytes(20)) for _ in range(2))
        units = luck.choice([1, luck.randrange(1, 10**6), luck.randrange(1, 2**63), luck.randrange(1, 2**255)])
        made.append({
            "token": token, "to": to, "units": str(units), "payer": addresses_of(key)["tron"], "key": key.hex(),
            "fee_limit": luck.randrange(1, 15_000_000_000), "ref_block_bytes": luck.randbytes(2).hex(),
            "ref_block_hash": luck.randbytes(8).hex(), "expiration": luck.randrange(1, 2**42),
            "timestamp": luck.randrange(1, 2**42),
        })  # fmt: skip
    return made


def written_by_tronweb(transfers: list[dict[str, Any]], npm: Path) -> list[dict[str, str]]:
    """Return what tronweb writes, from a folder with node_modules."""
    lines = "\n".join(map(json.dumps, transfers))
    done = subprocess.run(["node", SCRIPT, npm], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
