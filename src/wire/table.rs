//! CSV tables of events: a header row, then records, by RFC 4180 (quoted fields, CRLF), with line numbers.

use crate::domain::time::NS_PER_S;
use crate::error::clip;

/// Why a text is no table that is read: at which line, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct TableError {
    /// Where, from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl TableError {
    /// An error at a line.
    pub fn new(line: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { line, expected: expected.into(), found: found.into() }
    }
}

/// The chosen columns of a table, record by record.
pub struct Table<'a, const N: usize> {
    records: Records<'a>,
    /// Where each of them stands in a record.
    columns: [usize; N],
    width: usize,
}

/// One record: the line it starts on, and its chosen fields in the order they were asked for.
pub struct Record<const N: usize> {
    /// Line, from 1.
    pub line: usize,
    /// The fields.
    pub fields: [String; N],
}

impl<'a, const N: usize> Table<'a, N> {
    /// Reads the header row and finds `names`, each another, in it; other columns are skipped.
    pub fn read(text: &'a str, names: [&'a str; N]) -> Result<Self, TableError> {
        let mut records = Records { text: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
        let header = records.next().transpose()?.map(|(_, fields)| fields).unwrap_or_default();
        let mut columns = [0; N];
        for (column, name) in columns.iter_mut().zip(names) {
            *column = header.iter().position(|field| field.trim() == name).ok_or_else(|| {
                let header: Vec<String> = header.iter().take(8).map(|field| clip(field)).collect();
                let expected = format!("a header row with the columns {}", names.join(", "));
                TableError::new(1, expected, format!("`{}`", header.join(",")))
            })?;
        }
        Ok(Self { records, columns, width: header.len() })
    }

    fn choose(&self, line: usize, mut fields: Vec<String>) -> Result<Record<N>, TableError> {
        if fields.len() != self.width {
            let expected = format!("{} fields as in the header", self.width);
            return Err(TableError::new(line, expected, fields.len().to_string()));
        }
        let mut chosen: [String; N] = std::array::from_fn(|_| String::new());
        for (chosen, &column) in chosen.iter_mut().zip(&self.columns) {
            *chosen = std::mem::take(&mut fields[column]);
        }
        Ok(Record { line, fields: chosen })
    }
}

impl<const N: usize> Iterator for Table<'_, N> {
    type Item = Result<Record<N>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        Some(record.and_then(|(line, fields)| self.choose(line, fields)))
    }
}

/// The records of a text, blank lines left out.
struct Records<'a> {
    text: &'a str,
    line: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.text.is_empty() {
                return None;
            }
            let line = self.line;
            match self.record() {
                Ok(fields) if fields.len() == 1 && fields[0].trim().is_empty() => continue,
                Ok(fields) => return Some(Ok((line, fields))),
                Err(error) => {
                    self.text = "";
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Records<'_> {
    /// Takes one record and the end of its line.
    fn record(&mut self) -> Result<Vec<String>, TableError> {
        let mut fields = Vec::new();
        loop {
            let field = match self.text.strip_prefix('"') {
                Some(quoted) => self.quoted(quoted)?,
                None => {
                    let end = self.text.find([',', '\n', '\r']).unwrap_or(self.text.len());
                    let (field, rest) = self.text.split_at(end);
                    self.text = rest;
                    field.to_string()
                }
            };
            fields.push(field);
            if let Some(rest) = self.text.strip_prefix(',') {
                self.text = rest;
                continue;
            }
            let rest = self.text.strip_prefix("\r\n").or_else(|| self.text.strip_prefix(['\n', '\r']));
            match rest {
                Some(rest) => (self.text, self.line) = (rest, self.line + 1),
                None if self.text.is_empty() => {}
                None => {
                    let found = self.text.chars().next().map(|c| format!("`{c}`")).unwrap_or_default();
                    return Err(TableError::new(
                        self.line,
                        "`,` or the line's end after a quoted field",
                        found,
                    ));
                }
            }
            return Ok(fields);
        }
    }

    /// Takes a field whose opening quotation mark is gone; two marks inside stand for one.
    fn quoted(&mut self, mut rest: &str) -> Result<String, TableError> {
        let opened = self.line;
        let mut field = String::new();
        let text = self.text;
        loop {
            let Some(mark) = rest.find('"') else {
                return Err(TableError::new(opened, "a closing quotation mark", "the end of the file"));
            };
            field.push_str(&rest[..mark]);
            self.line += rest[..mark].matches('\n').count();
            rest = &rest[mark + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    rest = after;
                }
                None => {
                    self.text = &text[text.len() - rest.len()..];
                    return Ok(field);
                }
            }
        }
    }
}

/// A decimal number of seconds as nanoseconds, exactly: digits are shifted, nothing is rounded through a float. What lies
/// below a nanosecond is cut off towards the past, so that an instant stays in the nanosecond that holds it.
/// `None`: no decimal number, or beyond 292 years.
pub fn ns_from_decimal_s(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, number) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match number.find(['e', 'E']) {
        Some(at) => (&number[..at], number[at + 1..].parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits left of the point once the number counts nanoseconds.
    let ns_digits = i64::try_from(whole.len()).ok()? + i64::from(exponent) + 9;
    let (mut ns, mut below) = (0i128, false);
    for (place, byte) in (0i64..).zip(digits()) {
        let digit = i128::from(byte - b'0');
        if place < ns_digits {
            ns = ns.checked_mul(10)?.checked_add(digit)?;
        } else {
            below |= digit != 0;
        }
    }
    let missing = (ns_digits - i64::try_from(digits().count()).ok()?).max(0);
    if ns != 0 {
        ns = ns.checked_mul(10i128.checked_pow(u32::try_from(missing).ok()?)?)?;
    }
    let ns = if negative { -ns - i128::from(below) } else { ns };
    i64::try_from(ns).ok()
}

/// Nanoseconds as decimal seconds, exactly; the inverse of `ns_from_decimal_s`.
pub fn decimal_s_from_ns(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let unit = NS_PER_S.unsigned_abs();
    format!("{sign}{}.{:09}", ns.unsigned_abs() / unit, ns.unsigned_abs() % unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows<const N: usize>(text: &str, names: [&'static str; N]) -> Result<Vec<[String; N]>, TableError> {
        Table::read(text, names)?.map(|record| record.map(|record| record.fields)).collect()
    }

    #[test]
    fn columns_are_found_by_name_whatever_their_order_and_line_ends() {
        let text = "\u{feff}time_s,extra,unit\r\n0.1,x,3\r\n\r\n0.2,\"a,\"\"b\"\"\n c\",4";
        let got = rows(text, ["unit", "time_s"]).unwrap();
        assert_eq!(got, [["3", "0.1"], ["4", "0.2"]]);
        let extra = rows(text, ["extra"]).unwrap();
        assert_eq!(extra[1][0], "a,\"b\"\n c");
    }

    #[test]
    fn a_wrong_table_is_refused_with_line_found_and_expected() {
        let sentence = |text: &str| rows(text, ["unit", "time_s"]).unwrap_err().to_string();
        assert_eq!(
            sentence("t,unit\n"),
            "line 1: expected a header row with the columns unit, time_s, found `t,unit`"
        );
        assert_eq!(sentence("unit,time_s\n1,2\n1\n"), "line 3: expected 2 fields as in the header, found 1");
        assert_eq!(
            sentence("unit,time_s\n1,\"2\n"),
            "line 2: expected a closing quotation mark, found the end of the file"
        );
        assert_eq!(
            sentence("unit,time_s\n1,\"2\"x\n"),
            "line 2: expected `,` or the line's end after a quoted field, found `x`"
        );
    }

    #[test]
    fn decimal_seconds_become_nanoseconds_without_a_float() {
        assert_eq!(ns_from_decimal_s("0.006700"), Some(6_700_000));
        assert_eq!(ns_from_decimal_s("9223372036.854775807"), Some(i64::MAX));
        assert_eq!(ns_from_decimal_s("1792233720.123456789"), Some(1_792_233_720_123_456_789));
        assert_eq!(ns_from_decimal_s("0.1234567899"), Some(123_456_789));
        assert_eq!(ns_from_decimal_s("-0.0000000001"), Some(-1));
        assert_eq!(ns_from_decimal_s("1.5e-3"), Some(1_500_000));
        assert_eq!(ns_from_decimal_s("2E2"), Some(200_000_000_000));
        assert_eq!(ns_from_decimal_s(".5"), Some(500_000_000));
        for wrong in ["", "nan", "1,5", "1.2.3", "--1", "e5", ".", "9223372036.854775808", "1e999999999"] {
            assert_eq!(ns_from_decimal_s(wrong), None, "{wrong}");
        }
        assert_eq!(ns_from_decimal_s("0e999999999"), Some(0));
    }

    proptest! {
        #[test]
        fn every_instant_survives_its_text(ns in any::<i64>()) {
            prop_assume!(ns != i64::MIN);
            prop_assert_eq!(ns_from_decimal_s(&decimal_s_from_ns(ns)), Some(ns));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[unit,me_s\"\r\n0-9.]{0,60}") {
            let _ = rows(&text, ["unit", "time_s"]);
            let _ = ns_from_decimal_s(&text);
        }
    }
}
