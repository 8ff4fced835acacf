//! Draws what is looked at; only what is visible is put together.

use std::time::{Duration, Instant, SystemTime};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::model::{Model, Name};
use super::view::{Sort, View};
use crate::queues::Place;

/// How many of many holders are named: as many as may fit.
const NAMED: usize = 12;

/// What does not change.
pub(crate) struct Screen {
    /// What is looked at, and where.
    pub(crate) title: String,
    pub(crate) colour: bool,
}

/// The moment for which it is drawn.
pub(crate) struct Now<'a> {
    pub(crate) wall: SystemTime,
    pub(crate) instant: Instant,
    /// Nothing is heard from etcd: why, and since when.
    pub(crate) away: Option<&'a (String, Instant)>,
}

impl Screen {
    /// Returns the leases of which something is to be seen.
    pub(crate) fn draw(&self, frame: &mut Frame, model: &Model, view: &mut View, now: &Now) -> Vec<i64> {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
        self.head(frame, head, model);
        let leases = match view.opened.clone() {
            Some(name) => self.queue(frame, body, &name, model, view, now),
            None => self.names(frame, body, model, view, now),
        };
        self.foot(frame, foot, view, now);
        leases
    }

    fn head(&self, frame: &mut Frame, area: Rect, model: &Model) {
        let (mut names, mut held, mut waiting, mut handoffs) = (0, 0, 0, 0);
        for name in model.names() {
            names += 1;
            held += usize::from(name.queue.holding() > 0);
            waiting += name.queue.waiting();
            handoffs += name.handoffs();
        }
        let rate = model.rate(handoffs);
        let figures = format!("{names} names, {held} held, {waiting} waiting, {rate:.1} hand-offs/s");
        let width = u16::try_from(figures.len()).unwrap_or(u16::MAX);
        let [left, right] = Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
        frame.render_widget(Line::styled(&*self.title, Modifier::BOLD), left);
        frame.render_widget(Line::raw(figures), right);
    }

    fn names(&self, frame: &mut Frame, area: Rect, model: &Model, view: &mut View, now: &Now) -> Vec<i64> {
        let (names, cursor) = view.names(model, lines(area));
        let rows = names.iter().enumerate().map(|(at, name)| {
            let holder = name.queue.holders().next();
            let by = name.queue.holders().take(NAMED).map(|place| model.sessions.identity(place));
            let by = by.collect::<Vec<_>>().join(" ");
            let rate = model.rate(name.handoffs());
            let row = Row::new([
                Cell::from(&*name.queue.name),
                Cell::from(name.kind),
                right(name.queue.holding().to_string()),
                right(name.queue.waiting().to_string()),
                self.holder(if by.is_empty() { "-".to_owned() } else { by }, holder.is_some()),
                right(holder.map_or_else(dash, |place| age(place, now))),
                right(holder.map_or_else(dash, |place| left(place, model).map_or_else(dash, |(_, left)| left))),
                right(if rate > 0.0 { format!("{rate:.1}") } else { dash() }),
            ]);
            row.style(selected(at == cursor))
        });
        let sorted = |column| if view.sort == column { Modifier::UNDERLINED } else { Modifier::empty() };
        let head = Row::new([
            Cell::from("NAME").style(sorted(Sort::Name)),
            Cell::from("KIND"),
            right("HOLD".into()),
            right("WAIT".into()).style(sorted(Sort::Waiters)),
            Cell::from("HELD BY"),
            right("AGE".into()),
            right("LEASE".into()),
            right("H-OFF/S".into()).style(sorted(Sort::Activity)),
        ]);
        let widths = [
            Constraint::Fill(5),
            Constraint::Length(9),
            Constraint::Length(4),
            Constraint::Length(4),
            Constraint::Fill(4),
            Constraint::Length(6),
            Constraint::Length(5),
            Constraint::Length(7),
        ];
        frame.render_widget(Table::new(rows, widths).header(head.style(Modifier::BOLD)), area);
        let shown = names.iter().filter_map(|name: &&Name| name.queue.holders().next());
        shown.map(|place| place.waiter.lease()).collect()
    }

    fn queue(&self, frame: &mut Frame, area: Rect, name: &str, model: &Model, view: &mut View, now: &Now) -> Vec<i64> {
        let [title, area] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let name = model.name(name).ok_or(name);
        let places = name.map_or(&[][..], |name| name.queue.places());
        let (visible, cursor) = view.places(places.len(), lines(area));
        frame.render_widget(
            match name {
                Ok(known) => {
                    let (holding, waiting) = (known.queue.holding(), known.queue.waiting());
                    let rate = model.rate(known.handoffs());
                    Line::raw(format!("{}: {holding} hold, {waiting} wait, {rate:.1} hand-offs/s", known.queue.name))
                }
                Err(name) => Line::raw(format!("{name}: nobody holds it and nobody waits")),
            },
            title,
        );
        let rows = places[visible.clone()].iter().enumerate().map(|(at, place)| {
            let lease = left(place, model).map_or_else(dash, |(granted, left)| format!("{left} of {granted}"));
            let row = Row::new([
                right((visible.start + at).to_string()),
                Cell::from(if place.holds { "*" } else { "" }),
                self.holder(model.sessions.identity(place).to_owned(), place.holds),
                Cell::from(place.wish()),
                right(place.waiter.token().to_string()),
                right(age(place, now)),
                right(lease),
                Cell::from(place.value.as_deref().unwrap_or_default()),
            ]);
            row.style(selected(at == cursor))
        });
        let head = Row::new([
            right("#".into()),
            Cell::from(""),
            Cell::from("IDENTITY"),
            Cell::from("KIND"),
            right("TOKEN".into()),
            right("AGE".into()),
            right("LEASE".into()),
            Cell::from("VALUE"),
        ]);
        let widths = [
            Constraint::Length(4),
            Constraint::Length(1),
            Constraint::Fill(4),
            Constraint::Length(13),
            Constraint::Length(9),
            Constraint::Length(6),
            Constraint::Length(14),
            Constraint::Fill(3),
        ];
        frame.render_widget(Table::new(rows, widths).header(head.style(Modifier::BOLD)), area);
        places[visible].iter().map(|place| place.waiter.lease()).collect()
    }

    fn foot(&self, frame: &mut Frame, area: Rect, view: &View, now: &Now) {
        let line = if let Some((why, since)) = now.away {
            let time = brief(now.instant.duration_since(*since));
            let line = Line::raw(format!("away for {time}, trying again: {why}"));
            let warning = Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED);
            line.style(if self.colour { warning.fg(Color::Red) } else { warning })
        } else if view.typing {
            Line::from(vec![Span::raw("filter: "), Span::raw(&*view.filter), Span::styled(" ", Modifier::REVERSED)])
        } else if view.opened.is_some() {
            Line::raw("q quit  Esc back  arrows scroll")
        } else {
            let sort = match view.sort {
                Sort::Activity => "activity",
                Sort::Waiters => "waiters",
                Sort::Name => "name",
            };
            let filter = if view.filter.is_empty() { String::new() } else { format!(": {}", view.filter) };
            Line::raw(format!("q quit  s sort: {sort}  / filter{filter}  Enter open"))
        };
        frame.render_widget(Paragraph::new(line), area);
    }

    fn holder(&self, text: String, holds: bool) -> Cell<'static> {
        let cell = Cell::from(text);
        if holds && self.colour { cell.style(Color::Green) } else { cell }
    }
}

/// How many rows fit below the head of a table.
fn lines(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(1))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn dash() -> String {
    "-".to_owned()
}

fn selected(is: bool) -> Style {
    if is { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() }
}

fn age(place: &Place, now: &Now) -> String {
    let age = place.waiter.since().map(|since| now.wall.duration_since(since).unwrap_or_default());
    age.map_or_else(dash, brief)
}

/// How long its lease was granted for, and what remains.
fn left(place: &Place, model: &Model) -> Option<(String, String)> {
    model.lease(place.waiter.lease()).map(|(granted, left)| (brief(granted), brief(left)))
}

/// In six characters at most, below a hundred days.
fn brief(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}
