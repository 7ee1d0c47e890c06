//! Faults of recorded outcomes.
