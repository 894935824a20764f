"""Queues with order by key (`x-group-by`) and fair shares (`x-fair-by`)."""
