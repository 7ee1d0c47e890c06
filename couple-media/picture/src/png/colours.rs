//! Colour space of a PNG (PNG, third edition, 4.3 and 11.3.2).

use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, ColorPrimaries, ColorProfile, MatrixCoefficients,
    ToneReprCurve, TransferCharacteristics,
};

use crate::limits::MAX_PROFILE_BYTES;

/// Gamma that represents sRGB, and its tolerance: the chunk holds an exponent, not the curve.
const SRGB_GAMMA: f64 = 0.454_55;
const SRGB_GAMMA_TOLERANCE: f64 = 0.005;

/// Brightness of white in a picture with high dynamic range, as a share of the format's maximum.
///
/// 203 of 10,000 cd/m² in PQ, and the light of a signal of 0.75 in HLG (ITU-R BT.2408, 2.1). Brighter values are shown as white.
const PQ_WHITE: f64 = 203.0 / 10_000.0;
const HLG_WHITE: f64 = 0.265;

/// Chunks that describe colours. The first existing one in this order takes precedence.
#[derive(Debug)]
pub(crate) struct Colours {
    /// Whether samples are grey, with or without alpha: then only a grey ICC profile applies.
    grey: bool,
    /// Code points (ITU-T H.273) of primaries and transfer function.
    cicp: Option<(u8, u8)>,
    /// Inflated ICC profile.
    icc: Option<Vec<u8>>,
    /// Whether an iCCP chunk was read.
    ///
    /// Only the first is inflated: each may take 4 MiB, and a file may have thousands.
    icc_seen: bool,
    srgb: bool,
    gamma: Option<f64>,
    /// Chromaticities x and y of white, red, green and blue.
    chromaticities: Option<[f64; 8]>,
}

impl Colours {
    pub(super) fn of(grey: bool) -> Self {
        Self { grey, cicp: None, icc: None, icc_seen: false, srgb: false, gamma: None, chromaticities: None }
    }

    /// Reads a chunk. Invalid chunks are ignored, as browsers do.
    pub(super) fn take(&mut self, kind: [u8; 4], payload: &[u8]) {
        match (&kind, payload) {
            // RGB in full range; PNG allows no other matrix.
            (b"cICP", &[primaries, transfer, 0, 1]) => self.cicp = Some((primaries, transfer)),
            (b"iCCP", _) if !self.icc_seen => {
                self.icc_seen = true;
                self.icc = inflated(payload);
            }
            (b"sRGB", _) => self.srgb = true,
            (b"gAMA", _) => self.gamma = numbers(payload).map(|[gamma]| gamma).filter(|gamma| *gamma > 0.0),
            (b"cHRM", _) => self.chromaticities = numbers(payload).filter(are_chromaticities_valid),
            _ => {}
        }
    }

    /// Whether samples are grey.
    pub(crate) fn grey(&self) -> bool {
        self.grey
    }

    /// ICC profile of these colours. None: sRGB, or no chunk describes them.
    pub(crate) fn profile(self) -> Option<Vec<u8>> {
        let fits = |icc: &Vec<u8>| ColorProfile::new_from_slice(icc).is_ok();
        if let Some((primaries, transfer)) = self.cicp
            && let Some(colours) = by_code_points(primaries, transfer)
        {
            return colours.and_then(|profile| profile.encode().ok());
        }
        if let Some(icc) = self.icc.filter(fits) {
            return Some(icc);
        }
        if self.srgb {
            return None;
        }
        let exponent = self.gamma.filter(|gamma| (gamma - SRGB_GAMMA).abs() > SRGB_GAMMA_TOLERANCE);
        if exponent.is_none() && self.chromaticities.is_none() {
            return None;
        }
        let mut profile = ColorProfile::new_srgb();
        if let Some([white_x, white_y, red_x, red_y, green_x, green_y, blue_x, blue_y]) = self.chromaticities
        {
            let at = |x: f64, y: f64| Chromaticity::new(to_single_precision(x), to_single_precision(y));
            let primaries = ColorPrimaries {
                red: at(red_x, red_y),
                green: at(green_x, green_y),
                blue: at(blue_x, blue_y),
            };
            profile.update_rgb_colorimetry(at(white_x, white_y).to_xyyb(), primaries);
        }
        if let Some(gamma) = exponent {
            set_curve(&mut profile, &ToneReprCurve::Parametric(vec![to_single_precision(1.0 / gamma)]));
        }
        profile.encode().ok()
    }
}

/// Converts a chunk's value to the precision of a profile.
#[expect(clippy::cast_possible_truncation, reason = "five decimals, which single precision keeps")]
const fn to_single_precision(value: f64) -> f32 {
    value as f32
}

/// Profile for code points: `Some(None)` for sRGB, none for undefined code points.
fn by_code_points(primaries: u8, transfer: u8) -> Option<Option<ColorProfile>> {
    // Curves of cameras are treated as that of sRGB, as browsers do.
    let transfer = if matches!(transfer, 1 | 6 | 14 | 15) { 13 } else { transfer };
    if (primaries, transfer) == (1, 13) {
        return Some(None);
    }
    let high = matches!(transfer, 16 | 18);
    let mut profile = ColorProfile::new_from_cicp(CicpProfile {
        color_primaries: CicpColorPrimaries::try_from(primaries).ok()?,
        transfer_characteristics: TransferCharacteristics::try_from(if high { 13 } else { transfer }).ok()?,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    profile.red_trc.as_ref()?;
    // The profile's own code points would be applied in addition to the tags.
    profile.cicp = None;
    if high {
        let light = if transfer == 16 { pq } else { hlg };
        let curve: Vec<u16> = (0..4096).map(|step| sixteen_bits(light(f64::from(step) / 4095.0))).collect();
        set_curve(&mut profile, &ToneReprCurve::Lut(curve));
    }
    Some(Some(profile))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 65,535")]
fn sixteen_bits(light: f64) -> u16 {
    (light.clamp(0.0, 1.0) * 65_535.0).round() as u16
}

/// Light of a PQ signal (ITU-R BT.2100, table 4), 1 for white.
fn pq(signal: f64) -> f64 {
    let (m1, m2) = (2610.0 / 16_384.0, 2523.0 / 4096.0 * 128.0);
    let (c1, c2, c3) = (3424.0 / 4096.0, 2413.0 / 4096.0 * 32.0, 2392.0 / 4096.0 * 32.0);
    let power = signal.powf(1.0 / m2);
    ((power - c1).max(0.0) / (c2 - c3 * power)).powf(1.0 / m1) / PQ_WHITE
}

/// Light of an HLG signal (ITU-R BT.2100, table 5), 1 for white.
fn hlg(signal: f64) -> f64 {
    let (a, b, c) = (0.178_832_77, 0.284_668_92, 0.559_910_73);
    let light = if signal <= 0.5 { signal * signal / 3.0 } else { (((signal - c) / a).exp() + b) / 12.0 };
    light / HLG_WHITE
}

fn set_curve(profile: &mut ColorProfile, curve: &ToneReprCurve) {
    for trc in [&mut profile.red_trc, &mut profile.green_trc, &mut profile.blue_trc] {
        *trc = Some(curve.clone());
    }
    profile.cicp = None;
}

/// Whether chromaticities are valid: the primaries are not on one line, and every y is positive.
fn are_chromaticities_valid(&[_, white, red_x, red_y, green_x, green_y, blue_x, blue_y]: &[f64; 8]) -> bool {
    let area = (green_x - red_x) * (blue_y - red_y) - (blue_x - red_x) * (green_y - red_y);
    let lit = [white, red_y, green_y, blue_y].iter().all(|y| *y > 0.0);
    lit && area.abs() > 0.001
}

/// Reads numbers of gAMA and cHRM, which are 100,000ths.
fn numbers<const N: usize>(payload: &[u8]) -> Option<[f64; N]> {
    let (parts, []) = payload.as_chunks::<4>() else { return None };
    let numbers: Vec<f64> =
        parts.iter().map(|part| f64::from(u32::from_be_bytes(*part)) / 100_000.0).collect();
    numbers.try_into().ok()
}

/// Reads an iCCP chunk: name, zero, method, deflated profile.
///
/// A profile that inflates beyond [`MAX_PROFILE_BYTES`] is ignored.
fn inflated(payload: &[u8]) -> Option<Vec<u8>> {
    let name = payload.iter().take(80).position(|&byte| byte == 0)?;
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(payload.get(name + 2..)?, MAX_PROFILE_BYTES).ok()
}
