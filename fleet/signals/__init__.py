"""The three signals: completions, errors, resources. Every counter is declared in `catalogue.py`.

Written by the finishing script and by `Recorder`, read by `Signals`.
"""

from fleet.signals.reader import BudgetRow, Signals, Snapshot
from fleet.signals.recorder import Recorder, WorkerReport, report_worker

__all__ = ["BudgetRow", "Recorder", "Signals", "Snapshot", "WorkerReport", "report_worker"]
