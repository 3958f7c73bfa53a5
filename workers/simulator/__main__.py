"""`python -m workers.simulator`: the simulator without the rest of Fleet."""

from workers.simulator.command import simulator

if __name__ == "__main__":
    simulator(prog_name="python -m workers.simulator")
