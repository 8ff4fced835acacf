//! What a place makes of what it hears: whom it knows to be ahead, and whether it is its turn.

use super::Place;
use super::state::{Covered, Reach, Standing, State};
use super::words::{Elder, End, Listing, Patience};
use crate::name::{Key, Revision};

impl Place {
    pub(super) fn limit(&self, reach: Reach, gone: usize) -> Option<usize> {
        (reach == Reach::Window).then_some(self.rule.view() + 1 + gone)
    }

    /// A look is due at once where a fact asks for it, and once all watches stand if something may have happened
    /// before they did.
    pub(super) fn must_look(&self, standing: &Standing) -> bool {
        let all_stand: Option<Vec<_>> = self.watching().map(|key| standing.covered.get(key)).collect();
        standing.due.is_some() || all_stand.is_some_and(|since| since.into_iter().any(|from| from > standing.seen))
    }

    pub(super) fn entered(&mut self, created: Revision, listing: Listing) {
        let (Listing { revision: seen, mut elders, more, deep, .. }, tried) = match self.state {
            State::Entering => (listing, false),
            State::Trying { .. } => (Listing { revision: listing.revision, ..Listing::default() }, true),
            _ => return,
        };
        if more {
            // In key order, cut short: it proves nothing but the own key.
            elders.clear();
        }
        let all_in_view = self.rule.narrow(&mut elders);
        self.state = State::Waiting(Standing {
            created,
            seen,
            elders,
            complete: !more && all_in_view,
            gone: Vec::new(),
            covered: Covered::default(),
            due: None,
            reach: Reach::Window,
            deep,
            glanced: false,
            handed: false,
        });
        self.judge();
        assert!(!tried || self.held().is_some(), "a try that put its key holds");
    }

    /// Decides on a try by whom it would have to wait for.
    pub(super) fn consider(&mut self, listing: &Listing) {
        let (State::Probing { left, .. } | State::Trying { left, .. }) = self.state else { return };
        self.state = if !self.rule.has_room(self.rule.weigh_all(&listing.elders)) {
            return self.depart(End::NotFree);
        } else if listing.more {
            State::Probing { left, reach: Reach::Everyone }
        } else if left > 0 {
            State::Trying { left: left - 1, known: listing.revision }
        } else {
            State::Entering
        };
    }

    pub(super) fn looked(&mut self, own: Option<Revision>, listing: Listing) {
        let (State::Waiting(standing) | State::Holding(standing)) = &mut self.state else { return };
        if own != Some(standing.created) {
            return self.key_gone();
        }
        let Listing { revision, mut elders, more, nested, deep } = listing;
        standing.deep |= deep;
        standing.glanced = false;
        if more && nested && standing.reach == Reach::Window {
            standing.reach = Reach::Everyone;
            standing.due.get_or_insert(revision);
            return;
        }
        standing.seen = standing.seen.max(revision);
        standing.due = standing.due.filter(|due| *due > revision);
        if let State::Waiting(standing) = &mut self.state {
            standing.gone.retain(|(key, created)| elders.iter().any(|e| e.key == *key && e.created == *created));
            elders.retain(|e| !standing.gone.iter().any(|(key, created)| e.key == *key && e.created == *created));
            let all_in_view = self.rule.narrow(&mut elders);
            standing.complete = !more && all_in_view;
            standing.elders = elders;
            self.judge();
        }
    }

    /// The elders in view are the newest, and no older ones will come. So it is enough to see which of them stand,
    /// and what else may: nobody, if one of them held, which the mark says.
    pub(super) fn may_glance(&self, standing: &Standing) -> bool {
        let knows_some = !standing.elders.is_empty() || !standing.gone.is_empty();
        standing.deep && !standing.glanced && self.rule.is_exclusive() && knows_some
    }

    pub(super) fn glanced(
        &mut self,
        own: Option<Revision>,
        revision: Revision,
        seen: Vec<Elder>,
        mark: Option<Revision>,
    ) {
        let State::Waiting(standing) = &mut self.state else { return };
        let known = standing.elders.iter().map(|elder| elder.created).chain(standing.gone.iter().map(|gone| gone.1));
        let mark = known.into_iter().find(|created| Some(*created) == mark);
        let stands = |elder: &Elder| seen.iter().any(|e| e.key == elder.key && e.created == elder.created);
        let all_stand = standing.gone.is_empty() && standing.elders.iter().all(stands);
        if own.is_some() && !standing.complete && mark.is_none() && !all_stand {
            standing.glanced = true;
            return;
        }
        let more = !standing.complete && mark.is_none();
        let elders = standing.elders.iter().filter(|elder| Some(elder.created) > mark && stands(elder)).cloned();
        let listing = Listing { revision, elders: elders.collect(), more, ..Listing::default() };
        self.looked(own, listing);
    }

    /// A deletion is a fact if it is later than the creation that was listed. Events of different watches have no
    /// order among each other, so a key on the own lease may have gone together with the own key.
    pub(super) fn deleted(&mut self, key: &Key, at: Revision) {
        let (State::Waiting(standing) | State::Holding(standing)) = &mut self.state else { return };
        if *key == self.key {
            if at > standing.created {
                self.key_gone();
            }
            return;
        }
        let Some(found) = standing.elders.iter().position(|elder| elder.key == *key && elder.created < at) else {
            return;
        };
        let elder = standing.elders.remove(found);
        let own_is_covered = standing.covered.get(&self.key).is_some_and(|from| from <= standing.seen);
        if !own_is_covered || elder.lease == self.lease {
            standing.due = standing.due.max(Some(at));
        } else if !standing.complete {
            // Whichever look shows who else stands, one that is on its way too: no elder will come any more.
            standing.due.get_or_insert(standing.seen);
        }
        standing.gone.push((elder.key, elder.created));
        self.judge();
    }

    /// Whoever gives is gone, though its key still stands; an exclusive holder proves that all older are gone too.
    pub(super) fn handed(&mut self, key: &Key, created: Revision, exclusive: bool) {
        let State::Waiting(standing) = &mut self.state else { return };
        if !standing.elders.iter().any(|elder| elder.key == *key && elder.created == created) {
            return;
        }
        standing.handed = true;
        standing.complete |= exclusive;
        let is_gone = |e: &mut Elder| e.created == created || exclusive && e.created < created;
        standing.gone.extend(standing.elders.extract_if(.., is_gone).map(|elder| (elder.key, elder.created)));
        self.judge();
    }

    /// Whether it is its turn, by all that is known. While a look is due that is not enough: its own key may have
    /// gone before those ahead of it did.
    pub(super) fn judge(&mut self) {
        let State::Waiting(standing) = &mut self.state else { return };
        if !self.rule.has_room(self.rule.weigh_all(&standing.elders)) {
            if self.patience != Patience::Wait {
                self.depart(End::NotFree);
            }
        } else if !standing.complete {
            standing.due.get_or_insert(standing.seen);
        } else if standing.due.is_none()
            && let State::Waiting(standing) = std::mem::replace(&mut self.state, State::Outside)
        {
            self.state = State::Holding(standing);
        }
    }
}
