"""The command line of the simulator: `fleet simulator` and `python -m fleet.workers.simulator` are the same command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

import click

from fleet.errors import ConfigurationError
from fleet.workers.simulator.limits import Mode
from fleet.workers.simulator.odd.catalogue import help_lines
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.wires.limit_headers import Family

#: What each option is when it is not given: one place, shared with programs that build the options themselves.
_DEFAULT = SimulatorOptions()

_EPILOG = f"""\b
Examples:
  fleet simulator --port 8080 --rpm 500 --tpm 200000 --seed 7
  fleet simulator --latency-ms 800 --error-rate 0.02 --hang-rate 0.001
  fleet simulator --answers solutions.jsonl --answer-field model.solution
  fleet simulator --agents --loop-share 0.05   (tools are called for 1 to 5 turns; a twentieth of the bots never ends)
  curl -s http://127.0.0.1:8080/ledger
  curl -s -X POST 'http://127.0.0.1:8080/collapse?share=0.1'   (a tenth of the bots answer alike; share=0 ends it)
  curl -s -X POST 'http://127.0.0.1:8080/bad?errors=3&avoidance=0.1&slow=2'   (so many bots, or a share, go bad)
  curl -s -X POST 'http://127.0.0.1:8080/failures?error_rate=1'   (an outage; error_rate=0 ends it)
  fleet simulator --clock-speed 1000   (batches of 24 hours are over in 86 seconds)
  curl -s -X POST 'http://127.0.0.1:8080/batch-faults?stuck=1&lost_create=2'   (the next batches meet these)
  curl -s -X POST 'http://127.0.0.1:8080/odd?name=fenced&share=0.3'   (so many calls behave oddly; name= ends it)

Ledger and switches answer this machine only, or who sends the token of --admin-token-file (Authorization: Bearer).
The address is printed as one line on stdout as soon as it takes calls. Any key and any model name are accepted.
Ctrl-C or SIGTERM stops it (exit code 130 or 0).

Odd behaviour, as real providers were seen to show it: ask for the model `odd-NAME`, send the header
`x-fleet-odd: NAME`, or switch it on for a share of all calls.

\b
{help_lines()}"""


@click.command(epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port; 0 takes a free one.")
@click.option("--rpm", type=int, default=_DEFAULT.rpm, show_default=True, help="Requests per minute, key and model.")
@click.option("--tpm", type=int, default=_DEFAULT.tpm, show_default=True, help="Tokens per minute, key and model.")
@click.option("--burst", type=float, default=_DEFAULT.burst, show_default=True, help="Share of a minute at once.")
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    default=_DEFAULT.mode,
    show_default=True,
    help="How a minute is counted.",
)
@click.option("--rpd", type=int, help="Requests per day, key and model; told in the headers instead of the minute's.")
@click.option("--in-flight", type=int, help="Calls of a key at the same time.")
@click.option(
    "--headers",
    type=click.Choice(get_args(Family)),
    default=_DEFAULT.headers,
    show_default=True,
    help="How limits are told in headers.",
)
@click.option("--minute-s", type=float, default=_DEFAULT.minute_s, show_default=True, help="Seconds of a minute.")
@click.option("--seed", type=int, default=_DEFAULT.seed, show_default=True, help="Seed of everything that is random.")
@click.option("--latency-ms", type=float, default=_DEFAULT.latency_ms, show_default=True, help="Median latency.")
@click.option("--error-rate", type=float, default=_DEFAULT.error_rate, show_default=True, help="Share answered 5xx.")
@click.option("--hang-rate", type=float, default=_DEFAULT.hang_rate, show_default=True, help="Share never answered.")
@click.option("--cut-rate", type=float, default=_DEFAULT.cut_rate, show_default=True, help="Share cut in the body.")
@click.option(
    "--flex-busy-rate",
    type=float,
    default=_DEFAULT.flex_busy_rate,
    show_default=True,
    help="Share of calls of the tier `flex` refused for want of capacity.",
)
@click.option("--agents", is_flag=True, help="Every model that is offered tools calls them as an agent's does.")
@click.option(
    "--loop-share",
    type=float,
    default=_DEFAULT.loop_share,
    show_default=True,
    help="Share of the bots whose agents make the same call for ever.",
)
@click.option("--answers", type=click.Path(path_type=Path), help="JSONL file of recorded answers to replay.")
@click.option(
    "--answer-field",
    default=_DEFAULT.answer_field,
    show_default=True,
    help="Field of the answer, dotted. If several (a,b), each bot gets one.",
)
@click.option("--question-field", default=_DEFAULT.question_field, show_default=True, help="Field of the question.")
@click.option(
    "--input-usd-per-mtok", type=float, default=_DEFAULT.input_usd_per_mtok, show_default=True, help="Ledger's price."
)
@click.option(
    "--output-usd-per-mtok", type=float, default=_DEFAULT.output_usd_per_mtok, show_default=True, help="Ledger's price."
)
@click.option("--cached-usd-per-mtok", type=float, help="Of input read from the prefix cache.  [default: as input]")
@click.option("--cache-write-usd-per-mtok", type=float, help="Of input written to it.  [default: as input]")
@click.option("--cache-write-1h-usd-per-mtok", type=float, help="The same, kept for an hour.  [default: as input]")
@click.option("--cache-machine-rpm", type=int, help="Calls of one beginning that meet one cache; OpenAI's: about 15.")
@click.option(
    "--cache-places",
    type=int,
    default=_DEFAULT.cache_places,
    show_default=True,
    help="Places of prompts that the prefix caches remember, one in 512 characters.",
)
@click.option(
    "--flex-factor", type=float, default=_DEFAULT.flex_factor, show_default=True, help="Price of `flex` calls."
)
@click.option(
    "--priority-factor", type=float, default=_DEFAULT.priority_factor, show_default=True, help="Of `priority` calls."
)
@click.option("--batch-factor", type=float, default=_DEFAULT.batch_factor, show_default=True, help="Of batches.")
@click.option(
    "--background-2h-factor",
    type=float,
    default=_DEFAULT.background_2h_factor,
    show_default=True,
    help="Of background responses with two hours of time.",
)
@click.option(
    "--background-8h-factor",
    type=float,
    default=_DEFAULT.background_8h_factor,
    show_default=True,
    help="The same with eight.",
)
@click.option("--batch-cached-factor", type=float, help="Of cached tokens in batches.  [default: --batch-factor]")
@click.option(
    "--clock-speed",
    type=float,
    default=_DEFAULT.clock_speed,
    show_default=True,
    help="How fast windows, caches and batches pass: 1000 makes 24 hours 86 seconds.",
)
@click.option(
    "--batch-median-s",
    type=float,
    default=_DEFAULT.batch_median_s,
    show_default=True,
    help="Half of the batches take so long at most.",
)
@click.option(
    "--batch-p95-s", type=float, default=_DEFAULT.batch_p95_s, show_default=True, help="The same for 95% of them."
)
@click.option("--batch-queue-tokens", type=int, help="Input tokens, key and model, that may wait in OpenAI's batches.")
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path),
    help="File with a token that opens ledger and switches to other machines.",
)
def simulator(*, host: str, port: int, admin_token_file: Path | None, **values: Any) -> None:
    """Run a simulated LLM provider, free of cost: OpenAI's and Anthropic's API, limits, failures and a ledger."""
    from fleet.config.secret_files import read_secret
    from fleet.workers.simulator.process import run  # aiohttp takes 0.4 s to import: not for --help

    try:
        token = None if admin_token_file is None else read_secret(admin_token_file, setting="--admin-token-file")
        sys.exit(run(SimulatorOptions(admin_token=token, **values), host=host, port=port))
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
