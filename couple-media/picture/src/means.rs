//! Scaling down by an integer factor: each sample is the mean of a square of samples.
//!
//! Means do not overshoot, so unlike Lanczos they lose nothing to clipping: black lines on white keep their brightness.

/// Maximum factor: column sums have 16 bits.
pub(super) const MAX_FACTOR: u32 = 64;

/// Computes means of squares of samples, row by row.
pub(super) struct Means {
    factor: usize,
    /// Number of interleaved samples per pixel.
    channels: usize,
    /// Sums of the rows since the last mean, by column.
    sums: Vec<u16>,
    summed: usize,
    samples: Vec<u8>,
    /// Width of the result, in pixels.
    width: u32,
    height: u32,
}

impl Means {
    /// For a picture of `width` × `height` pixels; `factor` is at most [`MAX_FACTOR`].
    pub(super) fn new((width, height): (u32, u32), channels: usize, factor: u32) -> Self {
        let factor = factor.clamp(1, MAX_FACTOR);
        let (across, down) = (width.div_ceil(factor), height.div_ceil(factor));
        Self {
            factor: factor as usize,
            channels,
            sums: vec![0; if factor == 1 { 0 } else { channels * width as usize }],
            summed: 0,
            samples: Vec::with_capacity(channels * across as usize * down as usize),
            width: across,
            height: down,
        }
    }

    /// Memory for the sums and the result, in bytes.
    pub(super) fn bytes((width, height): (u32, u32), channels: usize, factor: u32) -> usize {
        let factor = factor.clamp(1, MAX_FACTOR);
        channels * (width.div_ceil(factor) as usize * height.div_ceil(factor) as usize + 2 * width as usize)
    }

    /// Adds the next row: `channels` samples per pixel.
    pub(super) fn take(&mut self, row: &[u8]) {
        if self.factor == 1 {
            self.samples.extend_from_slice(row);
            return;
        }
        for (sum, &value) in self.sums.iter_mut().zip(row) {
            *sum += u16::from(value);
        }
        self.summed += 1;
        if self.summed == self.factor {
            self.mean();
        }
    }

    fn mean(&mut self) {
        match self.channels {
            1 => self.mean_of::<1>(),
            3 => self.mean_of::<3>(),
            _ => self.mean_of::<4>(),
        }
        self.sums.fill(0);
        self.summed = 0;
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of bytes")]
    fn mean_of<const CHANNELS: usize>(&mut self) {
        for pixels in self.sums.chunks(CHANNELS * self.factor) {
            let count = pixels.len() / CHANNELS * self.summed;
            let mut sums = [0_u32; CHANNELS];
            for pixel in pixels.chunks_exact(CHANNELS) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += u32::from(value);
                }
            }
            // As exact as a division: sums stay below 2^24.
            let inverse = 1.0 / count as f32;
            self.samples.extend(sums.map(|sum| (sum as f32 * inverse + 0.5) as u8));
        }
    }

    /// Width, height and samples of the result.
    pub(super) fn finish(mut self) -> (u32, u32, Vec<u8>) {
        if self.summed > 0 {
            self.mean();
        }
        (self.width, self.height, self.samples)
    }
}
