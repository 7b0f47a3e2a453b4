//! `channels.csv`: the names and physics of the channels that a model was trained on.

use super::finding::{Finding, Findings, quoted};

/// One channel that a model expects. Empty texts are "not told".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelChannel {
    /// Its name, by which a rig's channel is found.
    pub name: String,
    /// Physical unit: uV, mV, V, 1.
    pub unit: String,
    /// Electrode it was taken from.
    pub electrode: String,
    /// Array, shank or probe.
    pub group: String,
    /// What kind of channel it is.
    pub kind: String,
    /// `threshold`, `sorted` or `any`.
    pub source: String,
    /// What it was referenced to.
    pub reference: String,
    /// Place (x, y, z); empty or three numbers.
    pub position: Vec<f64>,
}

/// The columns that may stand in the file; `name` must.
const COLUMNS: [&str; 10] =
    ["name", "unit", "electrode", "group", "kind", "source", "reference", "x", "y", "z"];

/// Reads a `channels.csv` (also a `units_file`): a header row, then one row per channel.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<ModelChannel>, Findings> {
    let one =
        |key: String, expected: &str, found: String| Findings::one(Finding::new(file, key, expected, found));
    let text = std::str::from_utf8(bytes)
        .map_err(|_| one(String::new(), "UTF-8 text", "bytes that are none".into()))?;
    let mut rows = rows(text.trim_start_matches('\u{feff}'))
        .map_err(|line| one(format!("line {line}"), "a closing quote", "the end of the file".into()))?
        .into_iter();
    let (_, header) = rows.next().ok_or_else(|| one("line 1".into(), "a header row", "nothing".into()))?;
    let mut findings = Findings::none();
    let header: Vec<String> = header.iter().map(|word| word.trim().to_lowercase()).collect();
    for (i, column) in header.iter().enumerate() {
        if !COLUMNS.contains(&column.as_str()) {
            let expected = format!("one of the columns {}", COLUMNS.join(", "));
            findings.push(Finding::new(file, "line 1", expected, quoted(column)));
        } else if header[..i].contains(column) {
            findings.push(Finding::new(file, "line 1", "each column once", format!("{column} twice")));
        }
    }
    if !header.iter().any(|column| column == "name") {
        findings.push(Finding::new(file, "line 1", "a column `name`", header.join(",")));
    }
    findings.unless_any(())?;

    let mut findings = Findings::none();
    let mut channels: Vec<ModelChannel> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for (line, row) in rows {
        let at = format!("line {line}");
        if row.len() != header.len() {
            let expected = format!("{} fields, as the header has", header.len());
            findings.push(Finding::new(file, at, expected, row.len().to_string()));
            continue;
        }
        let mut channel = ModelChannel::default();
        let mut place = [None; 3];
        for (column, field) in header.iter().zip(&row) {
            let field = field.trim();
            match column.as_str() {
                "name" => channel.name = field.into(),
                "unit" => channel.unit = field.into(),
                "electrode" => channel.electrode = field.into(),
                "group" => channel.group = field.into(),
                "kind" => channel.kind = field.into(),
                "source" => channel.source = field.into(),
                "reference" => channel.reference = field.into(),
                axis if !field.is_empty() => match field.parse::<f64>() {
                    Ok(x) if x.is_finite() => place["xyz".find(axis).unwrap_or(0)] = Some(x),
                    _ => findings.push(Finding::new(
                        file,
                        format!("{at}, {axis}"),
                        "a finite number",
                        quoted(field),
                    )),
                },
                _ => {}
            }
        }
        if place.iter().any(Option::is_some) {
            channel.position = place.iter().map(|x| x.unwrap_or(0.0)).collect();
        }
        if !matches!(channel.source.as_str(), "" | "threshold" | "sorted" | "any") {
            let expected = "one of threshold, sorted, any";
            findings.push(Finding::new(file, format!("{at}, source"), expected, quoted(&channel.source)));
        }
        if channel.name.is_empty() {
            findings.push(Finding::new(file, format!("{at}, name"), "a name", "nothing"));
        } else if let Some(first) = seen.insert(channel.name.clone(), line) {
            let found = format!("{}, which line {first} has", quoted(&channel.name));
            findings.push(Finding::new(file, format!("{at}, name"), "a name of its own", found));
        }
        channels.push(channel);
    }
    if channels.is_empty() && findings.0.is_empty() {
        findings.push(Finding::new(file, "", "one row per channel", "a header alone"));
    }
    findings.unless_any(channels)
}

/// The file's rows with the line that each begins on. The error is the line of a quote that is never closed.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let mut rows = Vec::new();
    let (mut row, mut field) = (Vec::new(), String::new());
    let (mut line, mut begun) = (1, 1);
    let mut quoted_since = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        line += usize::from(letter == '\n');
        match letter {
            '"' if quoted_since.is_some() && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' if quoted_since.is_some() => quoted_since = None,
            '"' if field.is_empty() => quoted_since = Some(line),
            _ if quoted_since.is_some() => field.push(letter),
            ',' => row.push(std::mem::take(&mut field)),
            '\r' if letters.peek() == Some(&'\n') => {}
            '\n' => {
                row.push(std::mem::take(&mut field));
                rows.push((begun, std::mem::take(&mut row)));
                begun = line;
            }
            _ => field.push(letter),
        }
    }
    if let Some(since) = quoted_since {
        return Err(since);
    }
    row.push(field);
    rows.push((begun, row));
    rows.retain(|(_, row)| row.len() > 1 || !row[0].trim().is_empty());
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_units_places_and_quotes_are_read() {
        let text =
            "name,unit,x,y,z,source\r\n\"A,1\",uV,1,2.5,-3,any\n\nB,,,,,threshold\n\"say \"\"C\"\"\",,,,,";
        let channels = parse("m/channels.csv", text.as_bytes()).unwrap();
        assert_eq!(channels.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["A,1", "B", "say \"C\""]);
        assert_eq!(channels[0].position, [1.0, 2.5, -3.0]);
        assert_eq!((channels[0].unit.as_str(), channels[1].source.as_str()), ("uV", "threshold"));
        assert!(channels[1].position.is_empty());
    }

    #[test]
    fn every_wrong_row_is_named_by_its_line() {
        let said = parse("m/channels.csv", b"name,x\na,1\na,2\n,3\nb,far\nc\n").unwrap_err().to_string();
        assert_eq!(
            said,
            "m/channels.csv: line 3, name: expected a name of its own, found `a`, which line 2 has; \
             m/channels.csv: line 4, name: expected a name, found nothing; \
             m/channels.csv: line 5, x: expected a finite number, found `far`; \
             m/channels.csv: line 6: expected 2 fields, as the header has, found 1"
        );
    }

    #[test]
    fn a_header_without_names_or_with_other_words_is_refused() {
        let said = parse("c.csv", b"unit,colour\nuV,red\n").unwrap_err().to_string();
        assert!(said.contains("line 1: expected one of the columns name, unit,"), "{said}");
        assert!(said.contains("c.csv: line 1: expected a column `name`, found unit,colour"), "{said}");
        let said = parse("c.csv", b"name\n\"a\nb").unwrap_err().to_string();
        assert_eq!(said, "c.csv: line 2: expected a closing quote, found the end of the file");
    }
}
