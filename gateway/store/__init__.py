"""The SQL store: SQLite embedded, PostgreSQL by DATABASE_URL."""
