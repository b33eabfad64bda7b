//! The table: a figure, its spread, and its ratio to another figure of the same run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
    medians: BTreeMap<String, f64>,
}

impl Table {
    /// Times, compared with the median of an earlier row.
    pub fn times(&mut self, name: &str, times: &[Duration], against: Option<&str>) {
        let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
        ms.sort_by(f64::total_cmp);
        let median = ms[ms.len() / 2];
        self.medians.insert(name.into(), median);
        let spread = format!("{:.0} .. {:.0}", ms[0], ms[ms.len() - 1]);
        let other = against.and_then(|a| Some((a, self.medians.get(a)?)));
        let (against, ratio) = match other {
            Some((name, other)) => (name.to_string(), format!("{:.2}", median / other)),
            None => (String::new(), String::new()),
        };
        self.rows.push([name.into(), format!("{median:.0} ms"), spread, against, ratio]);
    }

    /// A figure that stands for itself.
    pub fn words(&mut self, name: &str, value: String, note: &str) {
        self.rows.push([name.into(), value, note.into(), String::new(), String::new()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let head = ["what", "median", "least .. most", "against", "ratio"].map(String::from);
        let all: Vec<&[String; 5]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |n: usize| all.iter().map(|r| r[n].chars().count()).max().unwrap_or_default();
        for row in &all {
            let cells = row.iter().enumerate().map(|(n, cell)| format!("{cell:<w$}", w = width(n)));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
