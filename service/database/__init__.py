"""The database: tables, transactions, its clock and schema, writes that share a transaction, what passes when it
fails."""
