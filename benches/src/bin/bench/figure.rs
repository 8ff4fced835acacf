//! What of a contender's answer is shown, and what is taken of several rounds.

use serde_json::Value;

/// One line of the report.
#[derive(Clone, Copy)]
pub struct Figure {
    pub label: &'static str,
    /// Where it stands in a contender's answer: `a.b`; `a|b` is the first that there is.
    pub path: &'static str,
    /// Where the floor's stands: in the answer of the floor, or else in Tenure's own.
    pub floor: &'static str,
    pub unit: Unit,
}

#[derive(Clone, Copy)]
pub enum Unit {
    /// A distribution, in µs: p50 (p99).
    Micros,
    /// A distribution in seconds: p50 (max).
    Seconds,
    PerSecond,
    Millis,
    Bytes,
    Count,
}

pub fn number(answer: &Value, path: &str) -> Option<f64> {
    path.split('|').find_map(|path| path.split('.').try_fold(answer, |value, key| value.get(key))?.as_f64())
}

/// A figure of a distribution: `a|b` becomes `a.LEAF|b.LEAF`.
pub fn leaf(path: &str, leaf: &str) -> String {
    path.split('|').map(|path| format!("{path}.{leaf}")).collect::<Vec<_>>().join("|")
}

/// The middle one; of an even number, the mean of the two.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// With separators, and decimals where they say something.
pub fn shown(value: f64) -> String {
    if value.abs() < 10.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let grouped: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{median, number, shown};

    /// A figure of another line would be taken for a contender's own.
    #[test]
    fn a_path_leads_to_the_first_that_there_is() {
        let answer = json!({ "handoff": { "p50_us": 7.5 }, "orphan": 3 });
        assert_eq!(number(&answer, "handoff.p50_us"), Some(7.5));
        assert_eq!(number(&answer, "kill|orphan"), Some(3.0));
        assert_eq!(number(&answer, "handoff.p99_us"), None);
    }

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(shown(1_234_567.0), "1,234,567");
        assert_eq!(shown(-999.6), "-1,000");
        assert_eq!(shown(1.1), "1.1");
        assert_eq!(shown(0.0), "0");
    }
}
