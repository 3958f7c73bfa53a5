"""`python -m fleet.workers.simulator`: the simulator without the rest of Fleet."""

from fleet.workers.simulator.command import simulator

if __name__ == "__main__":
    simulator(prog_name="python -m fleet.workers.simulator")
