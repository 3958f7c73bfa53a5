"""Jobs: many tasks with one end. What is known of them, in Redis; who queues members: `engine/jobs/`."""

from fleet.jobs.book import (
    END_MEMBER,
    END_REVOKED,
    ENDED_AS,
    JobLedger,
    JobState,
    end_call,
    end_revoked,
    reopen_member,
    revoked_call,
)
from fleet.jobs.members import MOST_MEMBERS, Membership, job_id_of, member_id, membership_of

__all__ = [
    "ENDED_AS", "END_MEMBER", "END_REVOKED", "MOST_MEMBERS", "JobLedger", "JobState", "Membership", "end_call",
    "end_revoked", "job_id_of", "member_id", "membership_of", "reopen_member", "revoked_call",
]  # fmt: skip
