from tests.support.databases import empty_database, postgresql_server

__all__ = ["empty_database", "postgresql_server"]
