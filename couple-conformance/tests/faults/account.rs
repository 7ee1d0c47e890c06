//! Faults of accounts, mailed tokens, sessions and tallies.
