//! `tenure top`: names, holders and waiters, as they change.
//!
//! One task follows etcd; whatever it hears goes into a model in memory, and what is visible of that is drawn.

mod feed;
mod model;
mod screen;
mod view;

use std::env;
use std::io::{self, IsTerminal as _, stdout};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossterm::event::{Event, EventStream};
use ratatui::DefaultTerminal;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::StreamExt as _;

use self::feed::News;
use self::model::{Model, Name};
use self::screen::{Now, Screen};
use self::view::View;
use crate::args::{Common, Top};
use crate::failure::{Failure, USAGE};
use crate::hold::interrupted;
use crate::look::object;
use crate::output::Output;
use crate::reader::Reader;
use crate::signals::{ENDING, Signals};

/// The screen is drawn, and a lease is asked for, so often at most.
const TICK: Duration = Duration::from_millis(50);

/// The screen is drawn so often at least: ages grow.
const STILL: Duration = Duration::from_millis(500);

/// In JSON.
const PERIOD: Duration = Duration::from_secs(1);

/// Changes that are not drawn yet.
const NEWS: usize = 256;

pub(crate) async fn top(common: &Common, top: Top, output: Output) -> Result<u8, Failure> {
    check(&top, output)?;
    // What follows etcd runs beside the screen, and ends with it.
    LocalSet::new().run_until(watch(common, top, output)).await
}

fn check(top: &Top, output: Output) -> Result<(), Failure> {
    match output {
        Output::Text if top.count.is_some() => {
            Err(Failure::new(USAGE, "top: --count counts JSON documents: it needs --json"))
        }
        Output::Text if !stdout().is_terminal() => {
            Err(Failure::new(USAGE, "top: the output is no terminal; --json prints a document a second instead"))
        }
        _ => Ok(()),
    }
}

async fn watch(common: &Common, top: Top, output: Output) -> Result<u8, Failure> {
    let mut signals = Signals::listen(&ENDING)?;
    let live = tokio::select! {
        live = Live::start(common, &top.prefix) => live?,
        signal = signals.next() => return Ok(interrupted(signal)),
    };
    match output {
        Output::Text => show(live, &top.prefix, signals).await,
        Output::Json => print(live, top.count, signals, output).await,
    }
}

/// The model, and what keeps it up to date.
struct Live {
    model: Model,
    reader: Reader,
    news: Receiver<News>,
    sender: Sender<News>,
    /// Nothing is heard from etcd: why, and since when.
    away: Option<(String, Instant)>,
    /// A lease is asked for.
    asking: bool,
}

impl Live {
    async fn start(common: &Common, prefix: &str) -> Result<Self, Failure> {
        let reader = Reader::connect(common).await?;
        let snapshot = reader.all(prefix).await?;
        let (sender, news) = channel(NEWS);
        spawn_local(feed::follow(reader.clone(), prefix.to_owned(), snapshot.revision, sender.clone()));
        let mut model = Model::new(&reader.namespace, Instant::now());
        model.read(snapshot);
        Ok(Self { model, reader, news, sender, away: None, asking: false })
    }

    /// Waits for news, and takes them in. Dropping the future loses nothing.
    async fn hear(&mut self) {
        let news = self.news.recv().await.expect("it owns a sender");
        self.model.tick(Instant::now());
        match news {
            News::Read(snapshot) => {
                self.model.read(snapshot);
                self.away = None;
            }
            News::Changed(events) => self.model.apply(&events),
            News::Away(why) => {
                let since = self.away.take().map_or_else(Instant::now, |(_, since)| since);
                self.away = Some((why, since));
            }
            News::Lease(lease, answer) => {
                self.asking = false;
                self.model.learn(lease, answer);
            }
        }
    }

    /// Asks for one of these leases, if it is time and no other is being asked for.
    fn ask(&mut self, wanted: impl IntoIterator<Item = i64>) {
        let Some(lease) = self.model.due(wanted).filter(|_| !self.asking) else { return };
        self.asking = true;
        let (reader, news) = (self.reader.clone(), self.sender.clone());
        spawn_local(async move {
            let answer = reader.lease(lease).await.unwrap_or_default();
            let _ = news.send(News::Lease(lease, answer)).await;
        });
    }
}

async fn show(mut live: Live, prefix: &str, mut signals: Signals) -> Result<u8, Failure> {
    let title = format!("tenure top {prefix}").trim_end().to_owned();
    let title = format!("{title} @ {}", live.reader.endpoints.join(","));
    let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (screen, mut view) = (Screen { title, colour }, View::default());
    let mut terminal = Fullscreen::enter()?;
    let (mut keys, mut ticks) = (EventStream::new(), ticks(TICK));
    let (mut changed, mut drawn, mut wanted) = (true, Instant::now(), Vec::new());
    loop {
        let draws = tokio::select! {
            biased;
            signal = signals.next() => return Ok(interrupted(signal)),
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if view.key(key).is_break() => return Ok(0),
                // A change of the size, too.
                Some(Ok(_)) => true,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(0),
            },
            _ = ticks.tick() => {
                live.ask(wanted.iter().copied());
                changed || drawn.elapsed() >= STILL
            }
            () = live.hear() => {
                changed = true;
                false
            }
        };
        if draws {
            (changed, drawn) = (false, Instant::now());
            live.model.tick(drawn);
            let now = Now { wall: SystemTime::now(), instant: drawn, away: live.away.as_ref() };
            terminal.0.draw(|frame| wanted = screen.draw(frame, &live.model, &mut view, &now))?;
        }
    }
}

/// A document a second, so many of them, or without end.
async fn print(mut live: Live, count: Option<u64>, mut signals: Signals, output: Output) -> Result<u8, Failure> {
    let (mut periods, mut asks) = (ticks(PERIOD), ticks(TICK));
    // The first one comes at once.
    periods.tick().await;
    let mut left = count;
    while left != Some(0) {
        tokio::select! {
            biased;
            signal = signals.next() => return Ok(interrupted(signal)),
            _ = periods.tick() => {
                live.model.tick(Instant::now());
                let document = document(&live);
                output.line("", &document)?;
                left = left.map(|left| left - 1);
            }
            _ = asks.tick() => {
                let holders: Vec<_> = live.model.names().flat_map(|name| name.queue.holders()).collect();
                let leases: Vec<_> = holders.iter().map(|place| place.waiter.lease()).collect();
                live.ask(leases);
            }
            () = live.hear() => {}
        }
    }
    Ok(0)
}

fn document(live: &Live) -> Value {
    let model = &live.model;
    let name = |name: &Name| {
        let holder = |place| object(place, &model.sessions, model.lease(place.waiter.lease()));
        json!({
            "name": name.queue.name,
            "kind": name.kind,
            "holders": name.queue.holders().map(holder).collect::<Vec<_>>(),
            "waiting": name.queue.waiting(),
            "handoffs_per_second": model.rate(name.handoffs()),
        })
    };
    json!({
        "time": SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs()),
        "revision": model.revision,
        "away": live.away.as_ref().map(|(why, _)| why),
        "names": model.names().map(name).collect::<Vec<_>>(),
    })
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The whole terminal, until this is dropped. A panic gives it back too.
struct Fullscreen(DefaultTerminal);

impl Fullscreen {
    fn enter() -> io::Result<Self> {
        Ok(Self(ratatui::try_init().inspect_err(|_| ratatui::restore())?))
    }
}

impl Drop for Fullscreen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        ratatui::restore();
    }
}
