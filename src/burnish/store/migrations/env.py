"""What Alembic runs: the steps, on the connection and in the transaction `open_store` gives it."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite cannot alter a column in place; batch mode copies the table instead.
    render_as_batch=True,
)
context.run_migrations()
