//! Physical units: what one unit is in another, by SI prefix.

/// Prefixes and their powers of ten.
const PREFIXES: [(&str, i32); 12] = [
    ("f", -15),
    ("p", -12),
    ("n", -9),
    ("u", -6),
    ("µ", -6),
    ("μ", -6),
    ("m", -3),
    ("c", -2),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
];

/// Other spellings of "no unit".
const PURE: [&str; 5] = ["1", "count", "counts", "spike", "spikes"];

/// What a value in `from` is multiplied with to be in `to`. `None`: they are units of different things.
pub fn factor(from: &str, to: &str) -> Option<f64> {
    if from == to || (PURE.contains(&from) && PURE.contains(&to)) {
        return Some(1.0);
    }
    let power = splits(from).find_map(|(base, power)| {
        splits(to).find(|(other, _)| *other == base).map(|(_, other_power)| power - other_power)
    })?;
    Some(if power < 0 { 1.0 / 10f64.powi(-power) } else { 10f64.powi(power) })
}

/// Each way to read a unit as prefix and base.
fn splits(unit: &str) -> impl Iterator<Item = (&str, i32)> {
    PREFIXES.iter().filter_map(move |(prefix, power)| {
        unit.strip_prefix(prefix).filter(|base| !base.is_empty()).map(|base| (base, *power))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_convert_by_si_prefix_and_different_things_do_not() {
        assert_eq!(factor("V", "uV"), Some(1e6));
        assert_eq!(factor("µV", "mV"), Some(1e-3));
        assert_eq!(factor("fT", "T"), Some(1e-15));
        assert_eq!(factor("m", "mm"), Some(1e3));
        assert_eq!(factor("uV", "uV"), Some(1.0));
        assert_eq!(factor("counts", "1"), Some(1.0));
        assert_eq!(factor("V", "T"), None);
        assert_eq!(factor("V", "1"), None);
    }
}
