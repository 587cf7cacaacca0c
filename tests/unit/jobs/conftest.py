from tests.support.databases import empty_database, postgresql_server, store

__all__ = ["empty_database", "postgresql_server", "store"]
