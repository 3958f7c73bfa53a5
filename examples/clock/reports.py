"""A report every ten seconds. In this folder: `fleet up -d` (beat runs with it), `fleet schedules`, `ls reports`.

`fleet.toml` names the function and the times.
"""

from pathlib import Path

REPORTS = Path(__file__).with_name("reports")


async def write(task, bot):
    """Ask the model, and keep what it says in a file with the time for which it is."""
    answer = await bot.chat(task.prompt)
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / f"{task.metadata['scheduled_for'].replace(':', '.')}.txt"
    path.write_text(f"{answer}\n")
    return path.name
