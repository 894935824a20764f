"""Everything that a broker must do and a scenario must show, each with an id.

`ITEMS` maps ids to what is asked; `LEFT_OUT` maps ids to the reason why no scenario asks for it.
"""

from conformance.checklist import errors, exchange_types, methods, queues, statements

ITEMS: dict[str, str] = {
    **methods.METHODS,
    **errors.ERRORS,
    **statements.STATEMENTS,
    **exchange_types.EXCHANGE_TYPES,
    **queues.QUEUES,
}
LEFT_OUT: dict[str, str] = {**methods.LEFT_OUT, **errors.LEFT_OUT, **statements.LEFT_OUT}
