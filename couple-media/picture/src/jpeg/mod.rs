//! JPEG decoder that decodes at a reduced size.
//!
//! It exists because no maintained safe decoder scales while decoding, and four fifths of the work for an avatar are pixels that are not
//! needed (`docs/decisions/0012-own-jpeg-decoder.md`).
//!
//! It decodes the files of phones, cameras and programs: sequential and progressive Huffman-coded files of 8 bits with one, three or
//! four components. Samples stay in the file's planes, so that subsampled chroma is scaled at its own size. A large file with restart
//! markers is decoded by several threads.

mod baseline;
mod bits;
mod coefficients;
mod header;
mod huffman;
mod idct;
mod optimise;
mod picture;
mod planes;
mod progressive;
mod scan;
mod segments;
mod size;
mod standard;
mod tables;
#[cfg(test)]
mod tests;

pub(super) use header::{Header, Quantisation};
pub(super) use optimise::optimised;
pub(super) use size::size;

use super::{Limits, Rejected, limits::Deadline, samples::Plane};
use coefficients::{Coefficients, bytes_per_block};
use idct::Transform;
use picture::Picture;
use planes::{Grid, Units};
use scan::Scan;
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
    if memory(header, eighths) > limits.memory {
        return Err(Rejected::TooComplex("decoding needs too much memory".into()));
    }
    let transform = Transform::to(eighths);
    let mut picture = Picture {
        header,
        units,
        // The planes of a progressive file are allocated when its coefficients are complete.
        planes: grids
            .iter()
            .map(|grid| {
                vec![0; if header.progressive { 0 } else { grid.stride * grid.height * eighths * eighths }]
            })
            .collect(),
        coefficients: header.progressive.then(|| Coefficients::new(&grids, eighths, !header.ended)),
        grids,
        transform,
        eighths,
        deadline,
    };
    let mut tables = Tables::default();
    let mut received = Received::of(header);
    for segment in Segments::of(bytes) {
        let segment = segment?;
        if !header.ended && received.complete(header) {
            // Bytes in place of an EOI marker do not belong to the picture.
            break;
        }
        match segment.marker {
            DQT => tables.quantisation(segment.payload)?,
            DHT => tables.huffman(segment.payload)?,
            DRI => tables.restart(segment.payload)?,
            SOS => {
                let scan = Scan::read(segment.payload, header)?;
                if header.progressive {
                    picture.refine(&scan, &tables, segment.coded)?;
                } else {
                    picture.sequential(&scan, &tables, segment.coded)?;
                }
                received.add(&scan);
            }
            _ => {}
        }
    }
    if !header.ended && !received.complete(header) {
        return Err(Rejected::Truncated);
    }
    if received.0.iter().any(|low| low[0].is_none()) {
        return Err(Rejected::Corrupt("a component without a scan".into()));
    }
    picture.finish(&tables)
}

/// Number of blocks of each component.
fn blocks(header: &Header) -> impl Iterator<Item = usize> {
    let units = Units::of(header);
    header.components.iter().map(move |component| {
        let grid = units.grid(header, component);
        grid.stride.saturating_mul(grid.height)
    })
}

/// Bytes of all planes at `eighths`/8 of their size.
pub(super) fn plane_bytes(header: &Header, eighths: usize) -> usize {
    blocks(header).map(|blocks| blocks.saturating_mul(eighths * eighths)).fold(0, usize::saturating_add)
}

/// Maximum memory in bytes for decoding all planes at `eighths`/8 of their size.
pub(super) fn memory(header: &Header, eighths: usize) -> usize {
    if !header.progressive {
        return plane_bytes(header, eighths);
    }
    // The coefficients of each component are freed once its samples are decoded.
    let each = bytes_per_block(eighths);
    let mut left: usize =
        blocks(header).map(|blocks| blocks.saturating_mul(each)).fold(0, usize::saturating_add);
    let (mut planes, mut most) = (0_usize, 0);
    for blocks in blocks(header) {
        planes = planes.saturating_add(blocks.saturating_mul(eighths * eighths));
        most = most.max(planes.saturating_add(left));
        left = left.saturating_sub(blocks.saturating_mul(each));
    }
    most
}

/// For each component and coefficient, the lowest bit that the scans have decoded.
struct Received(Vec<[Option<u32>; 64]>);

impl Received {
    fn of(header: &Header) -> Self {
        Self(vec![[None; 64]; header.components.len()])
    }

    fn add(&mut self, scan: &Scan) {
        for &(component, ..) in &scan.components {
            let coefficients = self.0[component].iter_mut().enumerate();
            for (_, low) in coefficients.filter(|(k, _)| (scan.first..=scan.last).contains(k)) {
                *low = Some(scan.low);
            }
        }
    }

    /// Whether no further scan can add anything. A component has only one sequential scan.
    fn complete(&self, header: &Header) -> bool {
        let needed = if header.progressive { 64 } else { 1 };
        self.0.iter().all(|low| low[..needed].iter().all(|low| *low == Some(0)))
    }
}
