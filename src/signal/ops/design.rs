//! Butterworth filters and notches as second-order sections, with the poles that delay and settling are told from.
//!
//! Formulas: docs/MODELS.md. W(f) = tan(πf/fs); a pole s of the prototype's plane lies at z = (1 + s)/(1 − s).

use std::f64::consts::PI;

use num_complex::Complex64;

use crate::signal::op::BandKind;
use crate::signal::refusal::OpError;

/// A filter's outputs are warming up until its slowest pole has decayed to this.
const SETTLED: f64 = 0.01;

/// y = (b0 + b1 z⁻¹ + b2 z⁻²) / (1 + a1 z⁻¹ + a2 z⁻²) x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Section {
    /// b0, b1, b2.
    pub b: [f64; 3],
    /// a1, a2.
    pub a: [f64; 2],
}

impl Section {
    /// Gain at 0 Hz, and the memory (direct form II transposed) of an input that was 1 for ever.
    pub fn steady(&self) -> (f64, [f64; 2]) {
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        let gain = (b0 + b1 + b2) / (1.0 + a1 + a2);
        let second = b2 - a2 * gain;
        (gain, [b1 - a1 * gain + second, second])
    }
}

/// A cascade of sections.
#[derive(Clone, Debug)]
pub struct Design {
    /// In the order in which they run.
    pub sections: Vec<Section>,
    poles: Vec<Complex64>,
    fs_hz: f64,
}

/// The poles of one section, in the plane of the analogue prototype.
#[derive(Clone, Copy)]
enum Poles {
    /// A pole and its conjugate.
    Pair(Complex64),
    /// Two real ones.
    Reals(f64, f64),
    /// One real one: a section of first order.
    Single(f64),
}

impl Design {
    /// A Butterworth filter at `fs_hz`. `order` is that of the prototype: `band` and `stop` have twice as many poles.
    /// Errors: a corner outside (0, fs/2).
    pub fn butterworth(
        kind: BandKind,
        order: u32,
        low_hz: Option<f64>,
        high_hz: Option<f64>,
        fs_hz: f64,
    ) -> Result<Self, OpError> {
        let corner = |key, hz: Option<f64>| match hz {
            Some(hz) if hz >= fs_hz / 2.0 => {
                let expected = format!("below {} Hz, half of the rate", fs_hz / 2.0);
                Err(OpError::new(key, expected, hz.to_string()))
            }
            _ => Ok((PI * hz.unwrap_or(0.0) / fs_hz).tan()),
        };
        let (low, high) = (corner("low_hz", low_hz)?, corner("high_hz", high_hz)?);
        let mut poles = Vec::new();
        for k in 0..order / 2 {
            let angle = PI * f64::from(2 * k + order + 1) / f64::from(2 * order);
            let s = Complex64::from_polar(1.0, angle);
            match kind {
                BandKind::Low => poles.push(Poles::Pair(s * high)),
                BandKind::High => poles.push(Poles::Pair(low / s)),
                BandKind::Band => poles.extend(split(s * (high - low), low * high)),
                BandKind::Stop => poles.extend(split((high - low) / s, low * high)),
            }
        }
        if order % 2 == 1 {
            poles.push(match kind {
                BandKind::Low => Poles::Single(-high),
                BandKind::High => Poles::Single(-low),
                BandKind::Band | BandKind::Stop => split_real(high - low, low * high),
            });
        }
        let centre = (low * high).sqrt();
        let sections = poles.iter().map(|poles| section(kind, *poles, centre)).collect();
        let poles = poles.iter().flat_map(|poles| poles.both()).map(z_of).collect();
        Ok(Self { sections, poles, fs_hz })
    }

    /// Notches at `hz` and its harmonics, the fundamental counted, from low to high; those at or above half of the rate
    /// are left out. Errors: the fundamental is there itself, or a notch is wider than the band.
    pub fn notches(hz: f64, q: f64, harmonics: u32, fs_hz: f64) -> Result<Self, OpError> {
        if hz >= fs_hz / 2.0 {
            let expected = format!("below {} Hz, half of the rate", fs_hz / 2.0);
            return Err(OpError::new("hz", expected, hz.to_string()));
        }
        let mut design = Self { sections: Vec::new(), poles: Vec::new(), fs_hz };
        for notch_hz in (1..=harmonics).map(|h| f64::from(h) * hz).take_while(|hz| *hz < fs_hz / 2.0) {
            let w = 2.0 * PI * notch_hz / fs_hz;
            if w / q >= PI {
                let expected = format!("above {}, so that the notch at {notch_hz} Hz has a width", w / PI);
                return Err(OpError::new("q", expected, q.to_string()));
            }
            let g = 1.0 / (1.0 + (w / (2.0 * q)).tan());
            let (middle, last) = (-2.0 * g * w.cos(), 2.0 * g - 1.0);
            design.sections.push(Section { b: [g, middle, g], a: [middle, last] });
            let root = Complex64::new(g * g * w.cos() * w.cos() - last, 0.0).sqrt();
            design.poles.extend([g * w.cos() + root, g * w.cos() - root]);
        }
        Ok(design)
    }

    /// Group delay at `hz`, in samples: as many zeros as poles, all on the unit circle.
    pub fn delay_samples(&self, hz: f64) -> f64 {
        let turn = Complex64::from_polar(1.0, -2.0 * PI * hz / self.fs_hz);
        let of_pole = |pole: &Complex64| (pole * turn / (1.0 - pole * turn)).re;
        self.poles.len() as f64 / 2.0 + self.poles.iter().map(of_pole).sum::<f64>()
    }

    /// Group delay at `hz` (ms).
    pub fn delay_ms(&self, hz: f64) -> f64 {
        self.delay_samples(hz) / self.fs_hz * 1e3
    }

    /// The smallest number of samples after which the slowest pole has decayed to 0.01.
    pub fn settling(&self) -> u64 {
        let largest = self.poles.iter().map(|pole| pole.norm()).fold(0.0, f64::max);
        let n = (SETTLED.ln() / largest.ln()).ceil();
        // A pole so near the unit circle that its distance is lost never settles.
        if n.is_finite() && n >= 0.0 { (n as u64).max(1) } else { u64::MAX }
    }
}

impl Poles {
    fn both(self) -> Vec<Complex64> {
        match self {
            Poles::Pair(s) => vec![s, s.conj()],
            Poles::Reals(a, b) => vec![a.into(), b.into()],
            Poles::Single(a) => vec![a.into()],
        }
    }
}

/// The plane of the prototype to that of z.
fn z_of(s: Complex64) -> Complex64 {
    (1.0 + s) / (1.0 - s)
}

/// Both roots of s² − bs + W0²: the larger by the formula, the smaller as what is left, so that no digits are lost.
fn split(b: Complex64, centre_squared: f64) -> [Poles; 2] {
    let (half, root) = (b / 2.0, (b * b / 4.0 - centre_squared).sqrt());
    let larger = if (half + root).norm() >= (half - root).norm() { half + root } else { half - root };
    [Poles::Pair(larger), Poles::Pair(centre_squared / larger)]
}

/// The same for the prototype's pole at −1.
fn split_real(b: f64, centre_squared: f64) -> Poles {
    let rest = b * b / 4.0 - centre_squared;
    if rest < 0.0 {
        return Poles::Pair(Complex64::new(-b / 2.0, (-rest).sqrt()));
    }
    let larger = -b / 2.0 - rest.sqrt();
    Poles::Reals(larger, centre_squared / larger)
}

/// The section of these poles, its gain 1 at 0 Hz (low, stop), at half of the rate (high) or at the centre (band).
/// `centre`: W0.
fn section(kind: BandKind, poles: Poles, centre: f64) -> Section {
    let single = matches!(poles, Poles::Single(_));
    let a = match poles {
        Poles::Pair(s) => {
            let z = z_of(s);
            [-2.0 * z.re, z.norm_sqr()]
        }
        Poles::Reals(s, t) => {
            let (z, y) = (z_of(s.into()).re, z_of(t.into()).re);
            [-(z + y), z * y]
        }
        Poles::Single(s) => [-z_of(s.into()).re, 0.0],
    };
    let b = match kind {
        BandKind::Low if single => [1.0, 1.0, 0.0].map(|b| b * (1.0 + a[0]) / 2.0),
        BandKind::Low => [1.0, 2.0, 1.0].map(|b| b * (1.0 + a[0] + a[1]) / 4.0),
        BandKind::High if single => [1.0, -1.0, 0.0].map(|b| b * (1.0 - a[0]) / 2.0),
        BandKind::High => [1.0, -2.0, 1.0].map(|b| b * (1.0 - a[0] + a[1]) / 4.0),
        BandKind::Band => {
            // |z0 − z| = 2 |s0 − s| / (|1 − s0| |1 − s|), and |z0² − 1| = 4 W0 / |1 − s0|², at s0 = i W0.
            let at = Complex64::new(0.0, centre);
            let gains = poles.both().into_iter().map(|s| (at - s).norm() / (1.0 - s).norm());
            let gain = gains.product::<f64>() / centre;
            [gain, 0.0, -gain]
        }
        BandKind::Stop => {
            let squared = centre * centre;
            let middle = -2.0 * (1.0 - squared) / (1.0 + squared);
            [1.0, middle, 1.0].map(|b| b * (1.0 + a[0] + a[1]) / (2.0 + middle))
        }
    };
    Section { b, a }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// |H| at `hz`.
    fn gain(design: &Design, hz: f64) -> f64 {
        let z = Complex64::from_polar(1.0, -2.0 * PI * hz / design.fs_hz);
        let of = |s: &Section| {
            let (top, bottom) = (s.b[0] + z * (s.b[1] + z * s.b[2]), 1.0 + z * (s.a[0] + z * s.a[1]));
            (top / bottom).norm()
        };
        design.sections.iter().map(of).product()
    }

    #[test]
    fn corners_lie_at_minus_3_db_and_the_pass_band_at_0_db_for_every_kind_and_order() {
        let half = 0.5f64.sqrt();
        for order in 1..=9 {
            let of = |kind: BandKind| {
                let (low, high) = kind.corners();
                Design::butterworth(kind, order, low.then_some(30.0), high.then_some(80.0), 500.0).unwrap()
            };
            let centre = ((PI * 30.0 / 500.0).tan() * (PI * 80.0 / 500.0).tan()).sqrt().atan() / PI * 500.0;
            for (kind, pass_hz, corners) in [
                (BandKind::Low, 0.0, &[80.0][..]),
                (BandKind::High, 250.0, &[30.0]),
                (BandKind::Band, centre, &[30.0, 80.0]),
                (BandKind::Stop, 0.0, &[30.0, 80.0]),
            ] {
                let design = of(kind);
                let poles = if corners.len() == 2 { 2 * order } else { order };
                assert_eq!(design.poles.len(), poles as usize);
                assert!((gain(&design, pass_hz) - 1.0).abs() < 1e-9, "{kind:?} of order {order}");
                for hz in corners {
                    assert!((gain(&design, *hz) - half).abs() < 1e-9, "{kind:?} of order {order} at {hz} Hz");
                }
            }
        }
    }

    #[test]
    fn a_notch_takes_its_frequency_out_and_is_hz_over_q_wide() {
        let design = Design::notches(50.0, 25.0, 2, 1000.0).unwrap();
        assert!(gain(&design, 50.0) < 1e-12 && gain(&design, 100.0) < 1e-12);
        assert!((gain(&design, 0.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn settling_is_the_smallest_n_by_which_the_slowest_pole_has_decayed_to_a_hundredth() {
        for design in [
            Design::butterworth(BandKind::Band, 4, Some(4.0), Some(30.0), 128.0).unwrap(),
            Design::butterworth(BandKind::Low, 1, None, Some(32.0), 128.0).unwrap(),
            Design::notches(50.0, 30.0, 1, 250.0).unwrap(),
        ] {
            let largest = design.poles.iter().map(|pole| pole.norm()).fold(0.0, f64::max);
            let n = design.settling();
            assert!(largest.powi(n as i32) <= SETTLED && largest.powi(n as i32 - 1) > SETTLED, "{n}");
        }
    }
}
