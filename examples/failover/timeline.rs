//! What happened, when, to whom: on the terminal.

use std::env;
use std::io::{IsTerminal, stdout};
use std::time::Instant;

const GREEN: &str = "32";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

pub(crate) struct Timeline {
    begun: Instant,
    colour: bool,
}

impl Timeline {
    pub(crate) fn begin() -> Self {
        // https://no-color.org
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let timeline = Self { begun: Instant::now(), colour: stdout().is_terminal() && !refused };
        println!("{}", timeline.paint(DIM, &format!("{:>8}  {:<9} {:<44} {:>6}", "time", "who", "event", "token")));
        timeline
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    pub(crate) fn title(&self, title: &str) {
        println!("\n{}", self.paint(BOLD, title));
    }

    pub(crate) fn row(&self, at: Instant, who: &str, event: &str, token: Option<i64>) {
        let time = self.paint(DIM, &format!("{:>7.3}s", (at - self.begun).as_secs_f64()));
        let token = token.map(|token| token.to_string()).unwrap_or_default();
        let event = format!("{event:<44}");
        let event = if event.starts_with("SIG") { self.paint(RED, &event) } else { event };
        println!("{}", format!("{time}  {} {event} {token:>6}", self.paint(hue(who), &format!("{who:<9}"))).trim_end());
    }

    /// What has been checked.
    pub(crate) fn checked(&self, what: &str) {
        println!("{:>8}  {}", self.paint(GREEN, "      ok"), self.paint(GREEN, what));
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Everyone has a colour, by the number in the name.
fn hue(who: &str) -> &'static str {
    const HUES: [&str; 7] = ["37", "36", "33", "35", "34", "96", "95"];
    let number = who.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    HUES[number.unwrap_or_default() % HUES.len()]
}
