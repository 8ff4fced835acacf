//! What is said, in words or in JSON.

use std::fmt;
use std::io::{self, Write as _};

use serde_json::{Value, json};
use tenure::{Loss, Revocation};

use crate::failure::Failure;
use crate::hold::Hold;
use crate::queues;

/// How to say it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output {
    Text,
    Json,
}

/// What became of a hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    Held,
    Released,
    Lost(Loss),
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    /// A line of what was asked for, on standard output.
    pub(crate) fn line(self, text: impl fmt::Display, object: &Value) -> Result<(), Failure> {
        self.print(match self {
            Self::Text => format!("{text}\n"),
            Self::Json => format!("{object}\n"),
        })
    }

    /// All of it, on standard output.
    pub(crate) fn table<const N: usize>(self, table: &Table<N>) -> Result<u8, Failure> {
        let objects = || Value::from(table.objects.clone());
        self.print(match self {
            Self::Text => table.to_string(),
            Self::Json => format!("{}\n", objects()),
        })?;
        Ok(0)
    }

    fn print(self, text: String) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
    }

    /// Something worth knowing, on standard error.
    pub(crate) fn note(self, note: impl fmt::Display) {
        self.aside(format_args!("tenure: {note}"), &json!({ "event": "note", "message": note.to_string() }));
    }

    pub(crate) fn failure(self, failure: &Failure) {
        let Failure { code, message } = failure;
        self.aside(format_args!("tenure: {message}"), &json!({ "event": "error", "message": message, "code": code }));
    }

    /// What became of a hold: on standard output or, beside a command, whose that is, on standard error, where in text
    /// only a loss is worth a line.
    pub(crate) fn hold(self, told: Told, hold: &Hold, beside_command: bool) {
        let (name, token, lease) = (hold.name(), hold.token(), queues::lease_of(hold.key()));
        let (event, why) = match told {
            Told::Held => ("held", None),
            Told::Released => ("released", None),
            Told::Lost(loss) => ("lost", Some(loss.to_string())),
        };
        let mut object = json!({
            "event": event, "name": name, "key": hold.key(), "token": i64::from(token), "lease": lease,
        });
        let mut text = format!("{event} {name} token {token} lease {lease}");
        if let Some(why) = why {
            object["reason"] = why.as_str().into();
            text = format!("{event} {name}: {why}");
        }
        match self {
            Self::Text if beside_command && matches!(told, Told::Lost(_)) => self.note(text),
            Self::Text if beside_command => {}
            _ if beside_command => self.aside(text, &object),
            // Nobody reads it: no reason to give up the hold.
            _ => drop(self.line(text, &object)),
        }
    }

    /// That somebody asks to let go, on standard error.
    pub(crate) fn revocation(self, hold: &Hold, asked: &Revocation) {
        let (name, who, why) = (hold.name(), asked.identity(), asked.reason());
        let object = json!({ "event": "asked", "name": name, "identity": who, "reason": why });
        self.aside(format_args!("tenure: {name}: {who} asks to let go: {why}"), &object);
    }

    fn aside(self, text: impl fmt::Display, object: &Value) {
        let mut err = io::stderr().lock();
        // Nowhere is left to say that this failed.
        let _ = match self {
            Self::Text => writeln!(err, "{text}"),
            Self::Json => writeln!(err, "{object}"),
        };
    }
}

/// Rows in columns, or an array of objects.
pub(crate) struct Table<const N: usize> {
    head: [&'static str; N],
    rows: Vec<[String; N]>,
    objects: Vec<Value>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self { head, rows: Vec::new(), objects: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: [String; N], object: Value) {
        self.rows.push(row);
        self.objects.push(object);
    }
}

/// Without rows, nothing.
impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let head = self.head.map(str::to_owned);
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().chain([&head]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        });
        for row in [&head].into_iter().chain(&self.rows) {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
