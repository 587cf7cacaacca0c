"""The steps from an empty database to its newest form, run by alembic."""
