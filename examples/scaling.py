"""Ask how many slots a load wants, and why: the rule alone, without a Redis, a worker or a clock.

`python scaling.py`. Put in what you expect, and read what `fleet up --autoscale` and KEDA would make of it.
"""

from fleet.scaling import Bounds, Demand, LimitRoom, PoolDemand, decide

NOON = 1_800_014_400.0
RESEARCH = PoolDemand(
    pool="research",
    minutes=(300.0,) * 30,  # tasks in each of the last minutes
    service_s=4.0,  # seconds that one holds its slot
    ready=120,  # wait for a slot
    limits=("openai/gpt-5/default",),
)
# 50,000 more tasks of another pool wait behind a Retry-After: they want nothing until it is nearly over.
WRITING = PoolDemand(pool="writing", behind=50_000, is_shut=True, opens_at=NOON + 1800, why="429: try again in 30 min")
LIMITS = (LimitRoom(limit="openai/gpt-5/default", per_s=10),)

if __name__ == "__main__":
    wanted = decide(Demand(at=NOON, pools=(RESEARCH, WRITING), limits=LIMITS), Bounds(slots_each=16))
    print(wanted.slots, "slots,", wanted.workers, "workers:", wanted.reason)
    for pool in wanted.pools:
        print(f"{pool.pool}: {pool.slots:.1f} slots for {pool.per_s:.1f} tasks a second, {pool.why}")
