"""The database: where it is, its tables, and how they come to their newest form."""
