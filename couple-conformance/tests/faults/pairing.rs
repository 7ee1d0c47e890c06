//! Faults of invites, couples and blocks.
