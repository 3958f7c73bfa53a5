"""Schedules at work: what is due is submitted, by celery beat; and what people see of it."""
