"""A member's id says which job it is of and where it stands there."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from fleet.jobs import MOST_MEMBERS, Membership, job_id_of, member_id, membership_of


@given(st.text(max_size=50), st.integers(0, MOST_MEMBERS - 1))
def test_an_id_is_read_as_it_was_made_and_is_a_uuid_of_version_8(key: str, position: int) -> None:
    task_id = member_id(job_id_of(key), position)
    assert membership_of(task_id) == Membership(job_id_of(key), position)
    assert (uuid.UUID(task_id).version, str(uuid.UUID(task_id))) == (8, task_id)


@given(
    st.one_of(st.uuids().map(str), st.text(max_size=40), st.from_regex(r"[0-9a-f-]{14}8[0-9a-f-]{21}", fullmatch=True))
)
def test_any_other_id_is_of_no_job(text: str) -> None:
    found = membership_of(text)
    assert found is None or member_id(found.job, found.position) == text


def test_a_place_that_no_job_has_is_none() -> None:
    assert membership_of(member_id(job_id_of("a"), MOST_MEMBERS)) is None
