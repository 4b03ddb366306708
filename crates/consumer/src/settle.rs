//! When a topic is done: the registry's word on its devices, what is given up, and what may be closed.

use std::{collections::HashMap, time::Duration};

use isochrone_model::{
    id::{Token, Topic},
    time::{Monotonic, Reference, Second, nanos},
};
use isochrone_store::types::DeviceState;

use crate::{
    absence::Absences,
    buffer::{Ration, add_ranges},
    slice::{Claim, Slice, Stage},
};

impl Slice {
    /// The registry's devices of this partition, asked for at `asked_at`: makes new epochs known, passes last words on,
    /// decides what waited.
    pub fn devices(
        &mut self,
        devices: &[DeviceState],
        asked_at: Monotonic,
        now: Reference,
        absences: &Absences,
        ration: &mut Ration,
    ) {
        for state in devices {
            let Some(index) = self.find(state.device.response_topic.as_str()) else {
                continue;
            };
            let Some(claim) = self.claim_mut(index) else { continue };
            if !claim.book.knows(state.device.epoch) {
                claim.book.know(state.device.epoch);
                claim.devices += 1;
                self.touch(index);
            }
            if let Some(claim) = self.claim_mut(index) {
                claim.book.last_word(state.device.epoch, &state.row, now);
            }
        }
        self.decide(asked_at, absences, ration);
    }

    /// Gives up what has been missing for a drain, in every claim.
    pub fn expire(&mut self, now: Reference, drain: Duration) {
        for index in 0..self.claims.len() {
            let Some(claim) = self.claims[index].as_mut() else {
                continue;
            };
            let missing = claim.book.expire(now, drain);
            if !missing.is_empty()
                && let Some(part) = self.part(index, now.second())
            {
                add_ranges(&mut part.missing, missing);
            }
        }
    }

    /// Topics whose devices have all said their last word and of which nothing is awaited, nor any message's epoch asked for.
    pub fn settled(&self) -> Vec<Topic> {
        let waits = |index: usize| self.waiting.iter().any(|waiting| waiting.claim == index);
        let done = self.indices().filter(|(index, claim)| {
            claim.stage == Stage::Ready && claim.devices > 0 && claim.book.all_settled() && !waits(*index)
        });
        done.map(|(_, claim)| claim.topic.clone()).collect()
    }

    /// Topics whose devices have all said their last word, and that no subscription has stood for in `patience` since:
    /// nothing more is heard of them.
    pub fn forsaken(&self, now: Reference, patience: Duration) -> Vec<Topic> {
        let patience = nanos(patience);
        let waited = |claim: &Claim| {
            let since = claim.deaf_since?.max(claim.book.last_words_at()?);
            Some(now.since_ns(since))
        };
        let done = self
            .claims()
            .filter(|claim| claim.stage != Stage::Leaving && waited(claim).is_some_and(|waited| waited >= patience));
        done.map(|claim| claim.topic.clone()).collect()
    }

    /// Topics whose devices have all said that they sent nothing, and that nobody has ever listened on: no broker keeps anything
    /// for them.
    pub fn never_used(&self) -> Vec<Topic> {
        let done = self.claims().filter(|claim| {
            let unheard = claim.takeover.is_none() && !claim.subscribed_before;
            claim.stage != Stage::Leaving && unheard && claim.book.is_of_nothing()
        });
        done.map(|claim| claim.topic.clone()).collect()
    }

    /// Closes a settled topic that nothing can arrive on any more: its closed row is in the next flush. Messages of epochs
    /// that it did not know are foreign.
    pub fn close(&mut self, topic: &Topic, now: Reference) {
        let Some(index) = self.find(topic.as_str()) else { return };
        let seconds: Vec<Second> = self
            .waiting
            .iter()
            .filter(|waiting| waiting.claim == index)
            .map(|waiting| waiting.received.reference.second())
            .collect();
        self.waiting.retain(|waiting| waiting.claim != index);
        for second in seconds {
            self.foreign(index, second);
        }
        let Some(claim) = self.claim_mut(index) else { return };
        claim.stage = Stage::Leaving;
        let missing = claim.book.close(now);
        if let Some(part) = self.part(index, now.second()) {
            add_ranges(&mut part.missing, missing);
        }
    }

    /// Claims that the store has to be told of as subscribed.
    pub fn subscribed(&self) -> Vec<(Topic, Token)> {
        let told = self.claims().filter(|claim| claim.stage == Stage::Subscribed);
        told.map(|claim| (claim.topic.clone(), claim.token)).collect()
    }

    /// The store knows these as subscribed.
    pub fn told_ready(&mut self, topics: &[(Topic, Token)]) {
        for (topic, token) in topics {
            if let Some(claim) = self.find(topic.as_str()).and_then(|index| self.claim_mut(index))
                && claim.token == *token
                && claim.stage == Stage::Subscribed
            {
                claim.stage = Stage::Ready;
            }
        }
    }

    /// The store may have forgotten: everything subscribed is to be told again.
    pub fn forget_told(&mut self) {
        for claim in self.claims.iter_mut().flatten() {
            if claim.stage == Stage::Ready {
                claim.stage = Stage::Subscribed;
            }
        }
        self.strangers.clear();
    }

    /// Topics that a renewal's list, asked for at `asked_at`, says are not held any more. It does not know what was taken later.
    pub fn lost(&self, held: &[(Topic, Token)], asked_at: Monotonic) -> Vec<Topic> {
        let held: HashMap<&Topic, Token> = held.iter().map(|(topic, token)| (topic, *token)).collect();
        let gone = self
            .claims()
            .filter(|claim| claim.taken_at < asked_at && held.get(&claim.topic) != Some(&claim.token));
        gone.map(|claim| claim.topic.clone()).collect()
    }

    /// What a renewal's list names and is not held here.
    pub fn unknown(&self, held: &[(Topic, Token)]) -> Vec<(Topic, Token)> {
        let known = |(topic, token): &(Topic, Token)| {
            let claim = self.find(topic.as_str()).and_then(|index| self.claims[index].as_ref());
            claim.is_some_and(|claim| claim.token == *token)
        };
        held.iter().filter(|claim| !known(claim)).cloned().collect()
    }
}
