//! Which topics have series of their own: a bound on what one run can make a back end keep.

use std::collections::BTreeSet;

use isochrone_model::id::Topic;

/// The topic label of all topics that have no series of their own.
pub const OTHER: &str = "other";

/// The topics of one partition by how they show. Decided once, when a topic is first seen, and stored with the partition: a
/// series that changed its name in mid-run would fall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    named: BTreeSet<Topic>,
    unnamed: BTreeSet<Topic>,
}

impl Topics {
    /// How many have series of their own.
    pub fn named(&self) -> usize {
        self.named.len()
    }

    /// Decides for topics that are new, with names for `room` more; true when there was any.
    pub fn admit<'a>(&mut self, topics: impl Iterator<Item = &'a Topic>, mut room: usize) -> bool {
        let mut new = false;
        for topic in topics {
            if self.named.contains(topic) || self.unnamed.contains(topic) {
                continue;
            }
            new = true;
            // A topic that is really called `other` must not have the label that means all others.
            if room > 0 && topic.as_str() != OTHER {
                room -= 1;
                self.named.insert(topic.clone());
            } else {
                self.unnamed.insert(topic.clone());
            }
        }
        new
    }

    /// The name that the topic shows under.
    pub fn label<'a>(&self, topic: &'a Topic) -> &'a str {
        if self.named.contains(topic) {
            topic.as_str()
        } else {
            OTHER
        }
    }

    /// As stored: each topic as its length (u32), whether it has a name of its own (1 or 0), and its text.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (topics, mark) in [(&self.named, 1), (&self.unnamed, 0)] {
            for topic in topics {
                out.extend((topic.as_str().len() as u32).to_be_bytes());
                out.push(mark);
                out.extend(topic.as_str().as_bytes());
            }
        }
        out
    }

    /// From what was stored, as far as it can be read.
    pub fn unpack(mut bytes: &[u8]) -> Topics {
        let mut topics = Topics::default();
        while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
            let [a, b, c, d, mark] = *head;
            let Some((text, rest)) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize) else {
                break;
            };
            let topic = Topic::from(String::from_utf8_lossy(text).as_ref());
            if mark == 1 {
                topics.named.insert(topic)
            } else {
                topics.unnamed.insert(topic)
            };
            bytes = rest;
        }
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored comes back; the bound holds, and what was decided stays.
    #[test]
    fn decided_once_and_stored() {
        let all = ["b/ö\n1", "other", "a", ""].map(Topic::from);
        let mut topics = Topics::default();
        assert!(topics.admit(all.iter().take(2), 1));
        assert!(topics.admit(all.iter(), 1));
        assert!(!topics.admit(all.iter(), 9));
        assert_eq!(
            all.each_ref().map(|topic| topics.label(topic)),
            ["b/ö\n1", "other", "a", "other"]
        );
        assert_eq!(topics.named(), 2);
        assert_eq!(Topics::unpack(&topics.pack()), topics);
    }
}
