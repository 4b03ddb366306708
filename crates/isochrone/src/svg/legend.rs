//! A panel's title and what its colours show, from left to right.

use super::drawing::{Anchor, Area, Drawing, FAINT, Face, HEIGHTS, INK, Pen};

/// Where a legend goes on.
pub struct Legend {
    x: f64,
    y: f64,
}

impl Legend {
    /// A panel's title.
    pub fn begin(drawing: &mut Drawing, top: f64, title: &str) -> Legend {
        let mut legend = Legend {
            x: HEIGHTS.margin,
            y: top + 14.0,
        };
        drawing.text(legend.x, legend.y, Face::plain(INK, Anchor::Start).bold(), title);
        legend.pass(title, 8.2);
        legend
    }

    /// Words.
    pub fn word(&mut self, drawing: &mut Drawing, text: &str) {
        drawing.text(self.x, self.y, Face::plain(FAINT, Anchor::Start), text);
        self.pass(text, 7.2);
    }

    /// A line and what it shows.
    pub fn line(&mut self, drawing: &mut Drawing, text: &str, pen: Pen) {
        drawing.line((self.x, self.y - 4.5), (self.x + 22.0, self.y - 4.5), pen);
        self.x += 28.0;
        self.word(drawing, text);
    }

    /// A colour and what it shows.
    pub fn area(&mut self, drawing: &mut Drawing, text: &str, fill: &str) {
        let area = Area {
            x: self.x,
            y: self.y - 10.0,
            width: 12.0,
            height: 11.0,
        };
        drawing.area("key", area, fill, None);
        self.x += 18.0;
        self.word(drawing, text);
    }

    /// No font is known here: characters are as wide as those of the common ones.
    fn pass(&mut self, text: &str, character: f64) {
        self.x += text.chars().count() as f64 * character + 14.0;
    }
}
