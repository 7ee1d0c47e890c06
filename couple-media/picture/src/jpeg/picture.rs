//! State of a picture that is being decoded.

use super::{
    coefficients::Coefficients,
    header::Header,
    idct::Transform,
    planes::{Grid, Units},
};
use crate::limits::Deadline;

/// A picture that is being decoded.
pub(super) struct Picture<'a> {
    pub(super) header: &'a Header,
    pub(super) units: Units,
    pub(super) grids: Vec<Grid>,
    pub(super) planes: Vec<Vec<u8>>,
    /// Coefficients of a progressive file, whose samples are computed after all scans.
    pub(super) coefficients: Option<Coefficients>,
    pub(super) transform: Transform,
    pub(super) eighths: usize,
    pub(super) deadline: Deadline,
}
