"""One question to several bots, one answer of theirs. In this folder: `fleet up -d`, then `python ask_many.py`."""

from fleet import ask_fleet

# Five bots at most, none twice. Three that agree decide it, so the other two are never asked.
found = ask_fleet("What is 6 * 7?", n=5, pools=["research"], deadline_s=60)
print(found.answer, found.status, f"{found.agreement:.0%} of {found.answered} agree, {found.n - found.asked} not asked")
