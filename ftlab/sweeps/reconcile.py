"""The store's runs of ended trials, brought up to what Optuna's storage holds."""

from __future__ import annotations

from collections.abc import Mapping

from ftlab.sweeps.leases import Lease
from ftlab.sweeps.sweep import Sweep
from ftlab.sweeps.trial_job import STATUS
from ftlab.sweeps.trial_queue import TrialQueue
from ftlab.tracking.tracker import Tracker


def catch_up(sweep: Sweep, board: TrialQueue, tracker: Tracker, parents: Mapping[str, str]
             ) -> None:
    """Write what the store lacks of ended trials.

    A coordinator writes to Optuna first, then to the store. One that was killed between the two
    left a run that says RUNNING; one in an outage of the store, none. What it had measured beside
    the objectives is lost. `parents` are the store's runs of the cells' searches, by config.
    """
    records = {(record.key.config, record.number): record
             for record in tracker.trials(sweep.study.name, sweep.name)}
    for standing in board.standing():
        cell = standing.cell
        for trial in standing.trials:
            record = records.get((cell.key.config, trial.number))
            if not trial.state.is_finished() or (record and record.state == trial.state.name):
                continue
            if record is None or record.state != "RUNNING":
                run_id = tracker.open_trial(
                    parents[cell.key.config], trial.number, Lease.of(trial).attempts,
                    trial.params, sweep.config(cell, trial.params, sweep.seeds[0]))
            else:
                run_id = record.run_id
            state = trial.state.name
            reason = trial.user_attrs.get("ftlab.reason", "")
            tracker.end_run(run_id, STATUS.get(state, "KILLED"), reason)
            values = dict(zip(sweep.objectives, trial.values or (), strict=False))
            tracker.settle(run_id, state, values)
