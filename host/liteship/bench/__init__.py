"""Measure the active release of a target, and show meanwhile how far it is.

`measure` sends the job and keeps its report, `follow` makes lines and progress of the job's events, `live` is what a
terminal shows of them.
"""

from liteship.bench.measure import bench, make_job, mark_fetched, with_new_id

__all__ = ["bench", "make_job", "mark_fetched", "with_new_id"]
