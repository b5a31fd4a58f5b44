"""The steps by which the schema came to be what ``gateway.database.tables`` says.

Each file in ``versions`` is one step, ``v0001_….py`` and so on; its revision is its number. A new
one starts as the difference that ``alembic.autogenerate`` finds and is then read and tested on
SQLite and on PostgreSQL. What was released is never changed.
"""
