//! One request of documents to create, and where each of them comes from.

use isochrone_model::id::Topic;
use serde::Serialize;

use super::document::{Document, View};

/// Documents on their way: two lines each, what to do and the document.
#[derive(Debug, Default)]
pub struct Bulk {
    body: Vec<u8>,
    items: Vec<Item>,
    /// Cuts whose last document is in here or went before, with how many documents they have.
    ends: Vec<(usize, usize)>,
}

/// One document.
#[derive(Clone, Debug)]
pub struct Item {
    /// Which cut of the batch.
    pub cut: usize,
    /// Which document of the cut.
    pub index: usize,
    /// The response topic of a sample; `None` for a window.
    pub sample_of: Option<Topic>,
    /// Where its lines end.
    end: usize,
}

#[derive(Serialize)]
struct Action<'a> {
    create: Place<'a>,
}

#[derive(Serialize)]
struct Place<'a> {
    _index: &'a str,
    _id: &'a str,
}

impl Bulk {
    /// Adds a document.
    pub fn push(&mut self, cut: usize, index: usize, view: &View<'_>, document: &Document<'_>) {
        let place = view.place(document);
        let action = Action {
            create: Place {
                _index: &place.index,
                _id: &place.id,
            },
        };
        // Writing plain data into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.body, &action);
        self.body.push(b'\n');
        view.write(document, &mut self.body);
        self.body.push(b'\n');
        self.items.push(Item {
            cut,
            index,
            sample_of: match document {
                Document::Sample { topic, .. } => Some((*topic).clone()),
                Document::Window(_) => None,
            },
            end: self.body.len(),
        });
    }

    /// The cut's `count` documents are all in here, or went before.
    pub fn end(&mut self, cut: usize, count: usize) {
        self.ends.push((cut, count));
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The documents in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Cuts that are complete with this bulk, with how many documents they have.
    pub fn ends(&self) -> &[(usize, usize)] {
        &self.ends
    }

    /// The body of a request for all documents.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body of a request for some documents, by their place in [`Bulk::items`].
    pub fn part(&self, places: &[usize]) -> Vec<u8> {
        let mut body = Vec::new();
        for &place in places {
            let start = place.checked_sub(1).map_or(0, |before| self.items[before].end);
            body.extend_from_slice(&self.body[start..self.items[place].end]);
        }
        body
    }

    /// Empties it for the next request.
    pub fn clear(&mut self) {
        self.body.clear();
        self.items.clear();
        self.ends.clear();
    }
}
