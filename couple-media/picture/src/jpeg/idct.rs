//! Inverse transform of a block's coefficients to samples, at the block's size or smaller.
//!
//! The inverse transform of N points of the N × N lowest frequencies is the block at N/8 of its size: the output of an ideal low-pass
//! filter. libjpeg-turbo scales in the same way.
#![expect(
    clippy::cast_possible_truncation,
    reason = "samples are clamped to a byte, factors need no more than 24 bits"
)]

/// Position in the block of the k-th coefficient of a file (T.81, figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Dequantised coefficients of a block, row by row in order of vertical frequency.
pub(super) type Block = [f32; 64];

/// Added to a number below 2^22, it leaves the rounded number in the lowest bits.
const ROUND: f32 = 8_388_608.0;

#[inline(always)]
fn sample(value: f32) -> u8 {
    ((value + 128.0).clamp(0.0, 255.0) + ROUND).to_bits() as u8
}

/// Transforms blocks to N × N samples.
pub(super) struct Transform {
    /// By frequency, then by sample; rows are padded with zeros.
    basis: [[f32; 8]; 8],
    size: usize,
}

impl Transform {
    /// A transform to `size` × `size` samples (1 to 8).
    pub(super) fn to(size: usize) -> Self {
        let mut basis = [[0.0; 8]; 8];
        for (frequency, row) in basis.iter_mut().enumerate().take(size) {
            for (sample, value) in row.iter_mut().enumerate().take(size) {
                let angle =
                    (2 * sample + 1) as f64 * frequency as f64 * std::f64::consts::PI / (2 * size) as f64;
                let weight = if frequency == 0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
                *value = (0.5 * weight * angle.cos()) as f32;
            }
        }
        Self { basis, size }
    }

    /// Writes the block's samples to `out`, whose rows are `stride` apart.
    ///
    /// `last` is at least the zigzag position of the last coefficient that is not zero.
    #[inline]
    pub(super) fn run(&self, block: &Block, last: usize, out: &mut [u8], stride: usize) {
        // The factors of `whole` include the eighth.
        let flat = sample(if self.size == 8 { block[0] } else { block[0] * 0.125 });
        if last == 0 {
            for row in out.chunks_mut(stride).take(self.size) {
                row[..self.size].fill(flat);
            }
            return;
        }
        match self.size {
            1 => out[0] = flat,
            2 => self.lanes::<2, 2>(block, out, stride),
            3 => self.lanes::<3, 4>(block, out, stride),
            4 => self.lanes::<4, 4>(block, out, stride),
            5 => self.lanes::<5, 8>(block, out, stride),
            6 => self.lanes::<6, 8>(block, out, stride),
            7 => self.lanes::<7, 8>(block, out, stride),
            _ => whole(block, out, stride),
        }
    }

    /// Transforms to `N` × `N` samples, with `L` lanes.
    #[inline(always)]
    fn lanes<const N: usize, const L: usize>(&self, block: &Block, out: &mut [u8], stride: usize) {
        let mut columns = [[0.0_f32; L]; N];
        for (vertical, frequencies) in self.basis.iter().enumerate().take(N) {
            let row: [f32; L] = std::array::from_fn(|lane| block[8 * vertical + lane]);
            for (column, factor) in columns.iter_mut().zip(frequencies) {
                for (sum, value) in column.iter_mut().zip(row) {
                    *sum += value * factor;
                }
            }
        }
        for (column, to) in columns.iter().zip(out.chunks_mut(stride)) {
            let mut row = [0.0_f32; L];
            for (value, frequencies) in column.iter().zip(&self.basis).take(N) {
                for (sum, factor) in row.iter_mut().zip(frequencies) {
                    *sum += value * factor;
                }
            }
            let samples = row.map(sample);
            to[..N].copy_from_slice(&samples[..N]);
        }
    }
}

/// Factors by which coefficients for [`whole`] are multiplied, row by row.
///
/// From Arai, Agui and Nakajima (1988), scaled as in libjpeg's `jidctflt.c`.
pub(super) fn whole_scale() -> [f32; 64] {
    let factor = |frequency: usize| match frequency {
        0 => 1.0,
        _ => (frequency as f64 * std::f64::consts::PI / 16.0).cos() * std::f64::consts::SQRT_2,
    };
    std::array::from_fn(|position| (factor(position / 8) * factor(position % 8) / 8.0) as f32)
}

type Row = [f32; 8];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> Row {
    std::array::from_fn(f)
}

/// Eight inverse transforms of eight points, in parallel lanes.
#[inline(always)]
fn eight(rows: [Row; 8]) -> [Row; 8] {
    const SQRT_2: f32 = std::f32::consts::SQRT_2;
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let add = |a: Row, b: Row| each(|i| a[i] + b[i]);
    let sub = |a: Row, b: Row| each(|i| a[i] - b[i]);
    let mul = |a: Row, b: f32| each(|i| a[i] * b);
    // Even frequencies.
    let (t10, t11) = (add(r0, r4), sub(r0, r4));
    let t13 = add(r2, r6);
    let t12 = sub(mul(sub(r2, r6), SQRT_2), t13);
    let (e0, e3) = (add(t10, t13), sub(t10, t13));
    let (e1, e2) = (add(t11, t12), sub(t11, t12));
    // Odd frequencies.
    let (z13, z10) = (add(r5, r3), sub(r5, r3));
    let (z11, z12) = (add(r1, r7), sub(r1, r7));
    let o7 = add(z11, z13);
    let t11 = mul(sub(z11, z13), SQRT_2);
    let z5 = mul(add(z10, z12), 1.847_759_1);
    let t10 = sub(z5, mul(z12, 1.082_392_2));
    let t12 = sub(z5, mul(z10, 2.613_126));
    let o6 = sub(t12, o7);
    let o5 = sub(t11, o6);
    let o4 = sub(t10, o5);
    [add(e0, o7), add(e1, o6), add(e2, o5), add(e3, o4), sub(e3, o4), sub(e2, o5), sub(e1, o6), sub(e0, o7)]
}

#[inline(always)]
fn transposed(rows: [Row; 8]) -> [Row; 8] {
    std::array::from_fn(|i| each(|j| rows[j][i]))
}

/// Transforms to the block's own size; its coefficients are multiplied by [`whole_scale`].
fn whole(block: &Block, out: &mut [u8], stride: usize) {
    let rows = std::array::from_fn(|row| each(|column| block[8 * row + column]));
    let columns = transposed(eight(rows));
    let samples = transposed(eight(columns));
    for (row, to) in samples.into_iter().zip(out.chunks_mut(stride)) {
        to[..8].copy_from_slice(&row.map(sample));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_transform_equals_the_definition() {
        let mut block = [0.0; 64];
        for (position, value) in block.iter_mut().enumerate() {
            *value = ((position * 7919) % 41) as f32 - 20.0;
        }
        let by_definition = Transform::to(8);
        let mut expected = [0; 64];
        by_definition.lanes::<8, 8>(&block, &mut expected, 8);
        let scale = whole_scale();
        let scaled = std::array::from_fn(|position| block[position] * scale[position]);
        let mut seen = [0; 64];
        whole(&scaled, &mut seen, 8);
        for (seen, expected) in seen.iter().zip(expected) {
            assert!(seen.abs_diff(expected) <= 1, "{seen} {expected}");
        }
    }

    #[test]
    fn flat_block_is_flat_at_every_size() {
        let mut block = [0.0; 64];
        block[0] = 8.0 * 40.0;
        for size in 1..=8 {
            for last in [0, 63] {
                let mut input = block;
                if size == 8 {
                    input[0] *= whole_scale()[0];
                }
                let mut out = [0; 64];
                Transform::to(size).run(&input, last, &mut out, 8);
                for row in out.chunks(8).take(size) {
                    assert_eq!(row[..size], [168; 8][..size], "at {size}");
                }
            }
        }
    }
}
