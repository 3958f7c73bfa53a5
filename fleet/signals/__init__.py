"""The three signals: completions, errors, resources. Counters and events are declared in `catalogue.py`.

Written by the finishing script (`record.lua`) and by `Recorder`. `Signals` reads the totals. Everything is read by
`engine/operations/overview.py`, into the values of `view.py`.
"""

from fleet.signals.reader import BudgetRow, Signals, Snapshot
from fleet.signals.recorder import Recorder, WorkerReport, report_worker

__all__ = ["BudgetRow", "Recorder", "Signals", "Snapshot", "WorkerReport", "report_worker"]
