//! JPEG, decoded at the size that is needed.
//!
//! Why our own: no safe decoder that is kept gives less than the whole picture, and four fifths of the work for an avatar is
//! in what the whole picture has more (`docs/decisions/0012-own-jpeg-decoder.md`).
//!
//! It reads what phones, cameras and programs write: sequential and progressive Huffman-coded files of 8 bits with one,
//! three or four components. Samples stay in the planes that the file has, so that chroma is scaled as small as it is. A large file
//! with restarts is read by several threads.

mod baseline;
mod bits;
mod header;
mod huffman;
mod idct;
mod planes;
mod progressive;
mod segments;
mod size;
mod tables;
#[cfg(test)]
mod tests;

pub(super) use header::{Colour, Header, PROFILE};
pub(super) use planes::Plane;
pub(super) use size::size;

use super::{Limits, Rejected, limits::Deadline};
use idct::Transform;
use planes::{Grid, Units};
use segments::{DHT, DQT, DRI, SOS, Segments};
use tables::Tables;

/// Decodes all planes at `eighths`/8 of their size.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    eighths: usize,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Vec<Plane>, Rejected> {
    let units = Units::of(header);
    let grids: Vec<Grid> = header.components.iter().map(|component| units.grid(header, component)).collect();
    let blocks: usize = grids.iter().map(|grid| grid.stride * grid.height).sum();
    let each = eighths * eighths + if header.progressive { progressive::bytes_a_block(eighths) } else { 0 };
    if blocks.saturating_mul(each) > limits.memory {
        return Err(Rejected::TooComplex("it needs too much memory".into()));
    }
    let transform = Transform::to(eighths);
    let mut picture = Picture {
        header,
        units,
        planes: grids.iter().map(|grid| vec![0; grid.stride * grid.height * eighths * eighths]).collect(),
        coefficients: header.progressive.then(|| progressive::Coefficients::new(&grids, eighths)),
        grids,
        transform,
        eighths,
        deadline,
    };
    let mut tables = Tables::default();
    let mut seen = vec![false; header.components.len()];
    for segment in Segments::of(bytes) {
        let segment = segment?;
        match segment.marker {
            DQT => tables.quantisation(segment.payload)?,
            DHT => tables.huffman(segment.payload)?,
            DRI => tables.restart(segment.payload)?,
            SOS => {
                let scan = tables::Scan::read(segment.payload, header)?;
                for &(component, ..) in &scan.components {
                    seen[component] = true;
                }
                if header.progressive {
                    picture.refine(&scan, &mut tables, segment.coded)?;
                } else {
                    picture.sequential(&scan, &tables, segment.coded)?;
                }
            }
            _ => {}
        }
    }
    if seen.contains(&false) {
        return Err(Rejected::Corrupt("a component without a scan".into()));
    }
    picture.finish(&tables)
}

/// A picture that is being decoded.
struct Picture<'a> {
    header: &'a Header,
    units: Units,
    grids: Vec<Grid>,
    planes: Vec<Vec<u8>>,
    /// Of a progressive file, which has its samples only when all scans are read.
    coefficients: Option<progressive::Coefficients>,
    transform: Transform,
    eighths: usize,
    deadline: Deadline,
}
