//! Decodes scans of sequential files: each block is complete when it is read.

use std::sync::{Mutex, PoisonError};

use super::{
    bits::Bits,
    huffman::Table,
    idct::{Block, Transform, ZIGZAG},
    picture::Picture,
    scan::Scan,
    tables::Tables,
};
use crate::{Rejected, limits::Deadline, samples::Plane};

/// Minimum bytes of coded data for a second thread: some ten milliseconds of work.
const MIN_BYTES_FOR_THREADS: usize = 512 << 10;
/// Maximum number of threads.
///
/// More would not make a photo's first view faster: the work after decoding takes as long.
const MAX_THREADS: usize = 4;

/// Tables and layout for a component's blocks.
struct Component {
    dc: Table,
    ac: Table,
    quantiser: [f32; 64],
    /// Blocks per unit.
    across: usize,
    down: usize,
    /// Samples between the beginnings of two rows of its plane.
    stride: usize,
}

/// State that all units of a scan share.
struct Reader<'a> {
    components: Vec<Component>,
    /// Units per row.
    columns: usize,
    /// Units between restarts; 0 for none.
    restart: usize,
    transform: &'a Transform,
    eighths: usize,
    deadline: Deadline,
}

/// Rows of units that can be read independently of the rows before them.
struct Part<'a> {
    rows: usize,
    coded: &'a [u8],
    /// Whether a restart marker must follow.
    restarts: bool,
}

impl Picture<'_> {
    /// Reads a scan of a sequential file.
    pub(super) fn sequential(&mut self, scan: &Scan, tables: &Tables, coded: &[u8]) -> Result<(), Rejected> {
        let alone = scan.components.len() == 1;
        let mut components = Vec::with_capacity(scan.components.len());
        for &(index, dc, ac) in &scan.components {
            let described = &self.header.components[index];
            let (across, down) =
                if alone { (1, 1) } else { (described.across as usize, described.down as usize) };
            components.push(Component {
                dc: tables.dc(dc, false)?,
                ac: tables.ac(ac, false)?,
                quantiser: tables.quantiser(described.table, self.eighths)?,
                across,
                down,
                stride: self.grids[index].stride * self.eighths,
            });
        }
        let (columns, rows) = match &scan.components[..] {
            &[(index, ..)] => (self.grids[index].columns, self.grids[index].rows),
            _ => (self.units.columns, self.units.rows),
        };
        let mut planes: Vec<_> = self.planes.iter_mut().map(|plane| Some(&mut plane[..])).collect();
        let mut planes: Vec<&mut [u8]> =
            scan.components.iter().filter_map(|&(index, ..)| planes[index].take()).collect();
        let reader = Reader {
            components,
            columns,
            restart: tables.restart,
            transform: &self.transform,
            eighths: self.eighths,
            deadline: self.deadline,
        };
        let parts = reader.parts(coded, rows);
        if let [part] = &parts[..] {
            return reader.read(part, planes);
        }
        let mut work = Vec::with_capacity(parts.len());
        for part in &parts {
            let mut strips = Vec::with_capacity(planes.len());
            for (plane, component) in planes.iter_mut().zip(&reader.components) {
                let samples = part.rows * component.down * reader.eighths * component.stride;
                strips.push(plane.split_off_mut(..samples).unwrap_or_default());
            }
            work.push((part, Mutex::new(strips)));
        }
        let read = |(part, strips): &(&Part<'_>, Mutex<Vec<&mut [u8]>>)| {
            let mut strips = strips.lock().unwrap_or_else(PoisonError::into_inner);
            reader.read(part, std::mem::take(&mut *strips))
        };
        std::thread::scope(|scope| {
            let (mut threads, read) = (Vec::with_capacity(work.len()), &read);
            for part in &work {
                match std::thread::Builder::new().spawn_scoped(scope, move || read(part)) {
                    Ok(thread) => threads.push(thread),
                    // The system could not start a thread, which does not concern the picture.
                    Err(_) => read(part)?,
                }
            }
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
            })
        })
    }

    /// For a progressive file, transforms the coefficients of all scans. Returns the planes.
    pub(super) fn finish(mut self, tables: &Tables) -> Result<Vec<Plane>, Rejected> {
        self.transform_all(tables)?;
        let planes = self.header.components.iter().zip(self.planes);
        Ok(planes
            .map(|(component, samples)| self.units.plane(self.header, component, self.eighths, samples))
            .collect())
    }
}

impl Reader<'_> {
    /// Splits the data into one part per core if restart markers allow it; otherwise returns one part.
    fn parts<'a>(&self, coded: &'a [u8], rows: usize) -> Vec<Part<'a>> {
        let whole = || vec![Part { rows, coded, restarts: false }];
        if coded.len() < MIN_BYTES_FOR_THREADS
            || self.restart == 0
            || !self.restart.is_multiple_of(self.columns)
        {
            return whole();
        }
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS));
        let rows_each = self.restart / self.columns;
        let intervals = rows.div_ceil(rows_each);
        let restarts: Vec<usize> = memchr::memchr_iter(0xFF, coded)
            .filter(|&at| matches!(coded.get(at + 1), Some(0xD0..=0xD7)))
            .take(intervals)
            .collect();
        // Otherwise a marker is missing, which reading in one part reports.
        if threads == 1 || restarts.len() + 1 != intervals {
            return whole();
        }
        let (mut parts, mut row, mut at) = (Vec::with_capacity(threads), 0, 0);
        for n in 1..=threads {
            let after = n * intervals / threads;
            let until = restarts.get(after.wrapping_sub(1)).copied().unwrap_or(coded.len());
            let rows_until = (after * rows_each).min(rows);
            if rows_until > row {
                parts.push(Part {
                    rows: rows_until - row,
                    coded: &coded[at..until],
                    restarts: rows_until < rows,
                });
                (row, at) = (rows_until, (until + 2).min(coded.len()));
            }
        }
        parts
    }

    /// Reads a part into its rows of the planes.
    fn read(&self, part: &Part<'_>, mut planes: Vec<&mut [u8]>) -> Result<(), Rejected> {
        let mut bits = Bits::of(part.coded);
        let mut predicted = [0; 4];
        let mut left = self.restart;
        for row in 0..part.rows {
            self.deadline.check()?;
            for column in 0..self.columns {
                if self.restart > 0 {
                    if left == 0 {
                        bits.restart()?;
                        left = self.restart;
                        predicted = [0; 4];
                    }
                    left -= 1;
                }
                for ((component, plane), predicted) in
                    self.components.iter().zip(&mut planes).zip(&mut predicted)
                {
                    self.unit(component, plane, predicted, &mut bits, column, row)?;
                }
            }
            if bits.overrun() {
                return Err(Rejected::Truncated);
            }
        }
        if part.restarts && !bits.ended() {
            return Err(Rejected::Corrupt("a restart marker is missing".into()));
        }
        Ok(())
    }

    /// Reads one component's blocks of a unit.
    #[inline]
    fn unit(
        &self,
        component: &Component,
        plane: &mut [u8],
        predicted: &mut i32,
        bits: &mut Bits<'_>,
        column: usize,
        row: usize,
    ) -> Result<(), Rejected> {
        for y in 0..component.down {
            for x in 0..component.across {
                let (column, row) = (component.across * column + x, component.down * row + y);
                let mut block = [0.0; 64];
                let last = component.block(bits, predicted, &mut block)?;
                let start = self.eighths * (row * component.stride + column);
                self.transform.run(&block, last, &mut plane[start..], component.stride);
            }
        }
        Ok(())
    }
}

impl Component {
    /// Reads a block (T.81, F.2.2); returns the position of its last coefficient.
    #[inline]
    fn block(&self, bits: &mut Bits<'_>, predicted: &mut i32, block: &mut Block) -> Result<usize, Rejected> {
        bits.refill();
        let (_, difference) = self.dc.value(bits, false)?;
        *predicted = predicted.wrapping_add(difference);
        block[0] = *predicted as f32 * self.quantiser[0];
        let (mut k, mut last) = (1, 0);
        while k < 64 {
            bits.refill();
            let (run, value) = self.ac.value(bits, true)?;
            k += run;
            if k > 63 {
                break;
            }
            block[usize::from(ZIGZAG[k])] = value as f32 * self.quantiser[k];
            last = k;
            k += 1;
        }
        Ok(last)
    }
}
