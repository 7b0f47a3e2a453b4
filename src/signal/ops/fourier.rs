//! The discrete Fourier transform of any length: a power of two directly, every other length as a convolution
//! (Bluestein's chirp).

use std::f64::consts::PI;

use num_complex::Complex64;

/// A transform of one length, with its tables.
#[derive(Clone, Debug)]
pub struct Fourier {
    n: usize,
    /// e^(−2πij/m) for j < m/2, m being the length of `work`.
    roots: Vec<Complex64>,
    /// e^(−πij²/n) for j < n; empty where n is a power of two.
    chirp: Vec<Complex64>,
    /// Transform of the chirp's conjugate, divided by m.
    kernel: Vec<Complex64>,
    work: Vec<Complex64>,
}

impl Fourier {
    /// A transform of `n` values, at least 1.
    pub fn new(n: usize) -> Self {
        let is_direct = n.is_power_of_two();
        let m = if is_direct { n } else { (2 * n - 1).next_power_of_two() };
        let roots = (0..m / 2).map(|j| turn(2.0 * j as f64 / m as f64)).collect();
        let mut fourier =
            Self { n, roots, chirp: Vec::new(), kernel: Vec::new(), work: vec![Complex64::ZERO; m] };
        if !is_direct {
            // j² mod 2n: the angle of a large j² would have no digits left.
            let square = |j: usize| (j as u128 * j as u128 % (2 * n as u128)) as f64;
            fourier.chirp = (0..n).map(|j| turn(square(j) / n as f64)).collect();
            let mut kernel = vec![Complex64::ZERO; m];
            for (j, c) in fourier.chirp.iter().enumerate() {
                kernel[j] = c.conj() / m as f64;
                kernel[(m - j) % m] = kernel[j];
            }
            transform(&mut kernel, &fourier.roots);
            fourier.kernel = kernel;
        }
        fourier
    }

    /// The transform of `values` (n of them), `[n]`.
    pub fn run(&mut self, values: impl Iterator<Item = f64>) -> &[Complex64] {
        if self.chirp.is_empty() {
            self.work.iter_mut().zip(values).for_each(|(z, x)| *z = x.into());
            transform(&mut self.work, &self.roots);
            return &self.work;
        }
        self.work[self.n..].fill(Complex64::ZERO);
        for ((z, x), c) in self.work.iter_mut().zip(values).zip(&self.chirp) {
            *z = c * x;
        }
        transform(&mut self.work, &self.roots);
        // The way back is the way there, between two conjugations.
        self.work.iter_mut().zip(&self.kernel).for_each(|(z, k)| *z = (*z * k).conj());
        transform(&mut self.work, &self.roots);
        self.work.iter_mut().zip(&self.chirp).for_each(|(z, c)| *z = z.conj() * c);
        &self.work[..self.n]
    }
}

/// e^(−πi·x).
fn turn(x: f64) -> Complex64 {
    Complex64::from_polar(1.0, -PI * x)
}

/// In place; the length is a power of two.
fn transform(z: &mut [Complex64], roots: &[Complex64]) {
    let m = z.len();
    let bits = m.trailing_zeros();
    for i in 0..m {
        let j = if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) };
        if i < j {
            z.swap(i, j);
        }
    }
    let mut half = 1;
    while half < m {
        let stride = m / (2 * half);
        for part in z.chunks_exact_mut(2 * half) {
            let (even, odd) = part.split_at_mut(half);
            for ((a, b), root) in even.iter_mut().zip(odd).zip(roots.iter().step_by(stride)) {
                let turned = *b * root;
                (*a, *b) = (*a + turned, *a - turned);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_agrees_with_the_sum_that_defines_it() {
        for n in [1, 2, 3, 5, 8, 12, 17, 75, 125, 128] {
            let x: Vec<f64> = (0..n).map(|j| ((j * j) % 11) as f64 - 4.5).collect();
            let mut fourier = Fourier::new(n);
            fourier.run(std::iter::repeat_n(7.0, n)); // nothing of an earlier run stays
            let got = fourier.run(x.iter().copied()).to_vec();
            assert_eq!(got.len(), n);
            for (k, got) in got.iter().enumerate() {
                let term = |(j, x): (usize, &f64)| turn(2.0 * ((j * k) % n) as f64 / n as f64) * *x;
                let want: Complex64 = x.iter().enumerate().map(term).sum();
                assert!((got - want).norm() < 1e-10, "n = {n}, k = {k}: {got} is not {want}");
            }
        }
    }
}
