//! What of the model is looked at: the order, the filter, the place in the list, and what keys do to them.

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Model, Name};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sort {
    #[default]
    Activity,
    Waiters,
    Name,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Activity => Self::Waiters,
            Self::Waiters => Self::Name,
            Self::Name => Self::Activity,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) sort: Sort,
    /// Only names that contain it are listed.
    pub(crate) filter: String,
    /// Keys go to the filter.
    pub(crate) typing: bool,
    /// The name whose queue is shown.
    pub(crate) opened: Option<String>,
    /// The name that the cursor keeps to; none as long as it was not moved: then it is at the top.
    kept: Option<String>,
    /// The name under the cursor.
    here: Option<String>,
    list: Scroll,
    queue: Scroll,
}

/// A cursor in a list that may change under it.
#[derive(Debug, Default)]
struct Scroll {
    cursor: usize,
    offset: usize,
    /// By how much it is to move, and whether that counts in pages.
    steps: isize,
    pages: isize,
}

impl Scroll {
    /// Moves as asked; returns what is visible of `len` lines, and on which of these the cursor is.
    fn settle(&mut self, len: usize, height: usize) -> (Range<usize>, usize) {
        let page = isize::try_from(height.max(1)).unwrap_or(isize::MAX);
        let by = self.steps.saturating_add(self.pages.saturating_mul(page));
        (self.steps, self.pages) = (0, 0);
        self.cursor = self.cursor.saturating_add_signed(by).min(len.saturating_sub(1));
        let last = len.saturating_sub(height);
        self.offset = self.offset.clamp((self.cursor + 1).saturating_sub(height.max(1)), self.cursor).min(last);
        (self.offset..len.min(self.offset + height), self.cursor - self.offset)
    }

    fn moves(&self) -> bool {
        (self.steps, self.pages) != (0, 0)
    }
}

impl View {
    /// Does what a key asks for; breaks if that is to quit.
    pub(crate) fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if key.kind == KeyEventKind::Release {
            return ControlFlow::Continue(());
        }
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return ControlFlow::Break(()),
            KeyCode::Enter if self.typing => self.typing = false,
            KeyCode::Esc if self.typing => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace if self.typing => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.typing => self.filter.push(letter),
            KeyCode::Char('q') => return ControlFlow::Break(()),
            KeyCode::Esc if self.opened.take().is_none() => return ControlFlow::Break(()),
            KeyCode::Backspace | KeyCode::Left => self.opened = None,
            KeyCode::Enter | KeyCode::Right if self.opened.is_none() => {
                self.queue = Scroll::default();
                self.opened = self.here.clone();
                self.kept = self.here.clone();
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => (self.typing, self.opened) = (true, None),
            code => self.scroll(code),
        }
        ControlFlow::Continue(())
    }

    fn scroll(&mut self, code: KeyCode) {
        let scroll = if self.opened.is_some() { &mut self.queue } else { &mut self.list };
        match code {
            KeyCode::Up | KeyCode::Char('k') => scroll.steps = scroll.steps.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => scroll.steps = scroll.steps.saturating_add(1),
            KeyCode::PageUp => scroll.pages = scroll.pages.saturating_sub(1),
            KeyCode::PageDown => scroll.pages = scroll.pages.saturating_add(1),
            KeyCode::Home => scroll.steps = isize::MIN,
            KeyCode::End => scroll.steps = isize::MAX,
            _ => {}
        }
    }

    /// The names that fit into `height` lines, and which of them is selected.
    pub(crate) fn names<'a>(&mut self, model: &'a Model, height: usize) -> (Vec<&'a Name>, usize) {
        let names = self.sorted(model);
        let is_kept = |name: &&Name| Some(&name.queue.name) == self.kept.as_ref();
        self.list.cursor = match names.iter().position(is_kept) {
            Some(at) => at,
            None if self.kept.is_none() => 0,
            // Under a name that goes the cursor stays where it is.
            None => self.list.cursor,
        };
        let moves = self.list.moves();
        let (visible, cursor) = self.list.settle(names.len(), height);
        self.here = names.get(self.list.cursor).map(|name| name.queue.name.clone());
        if moves || self.kept.is_some() {
            self.kept = self.here.clone();
        }
        (names[visible].to_vec(), cursor)
    }

    /// What of a queue of `len` fits into `height` lines, and which of them the cursor is on.
    pub(crate) fn places(&mut self, len: usize, height: usize) -> (Range<usize>, usize) {
        self.queue.settle(len, height)
    }

    fn sorted<'a>(&self, model: &'a Model) -> Vec<&'a Name> {
        let mut names: Vec<_> = model.names().filter(|name| name.queue.name.contains(&self.filter)).collect();
        // They come by name, and a sort keeps that order among equals.
        match self.sort {
            Sort::Activity => names.sort_by_key(|name| Reverse((name.handoffs(), name.queue.waiting()))),
            Sort::Waiters => names.sort_by_key(|name| Reverse((name.queue.waiting(), name.handoffs()))),
            Sort::Name => {}
        }
        names
    }
}
