//! Faults of pictures.
