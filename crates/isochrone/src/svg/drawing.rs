//! Elements of SVG 1.1 with presentation attributes alone: no style sheet, script or font that a viewer could refuse.

use std::fmt::Write;

/// The picture's width; everything is in pixels of it.
pub const WIDTH: f64 = 960.0;
/// Where plots begin and end.
pub const LEFT: f64 = 78.0;
/// See [`LEFT`].
pub const RIGHT: f64 = 940.0;

/// How high things are.
pub struct Heights {
    /// Around everything.
    pub margin: f64,
    /// One line of text.
    pub line: f64,
    /// A panel's title and legend.
    pub legend: f64,
    /// Between panels.
    pub gap: f64,
}

/// The only ones.
pub const HEIGHTS: Heights = Heights {
    margin: 20.0,
    line: 19.0,
    legend: 24.0,
    gap: 14.0,
};

/// Text and lines, on white whatever the viewer's own colours are.
pub const INK: &str = "#1a1a1a";
/// What explains.
pub const FAINT: &str = "#595959";
/// Lines of an axis.
pub const GRID: &str = "#dddddd";
/// What is wrong.
pub const ALARM: &str = "#b3001b";

/// Where a text's position lies in it.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// In pixels.
    pub size: f64,
    /// 400 or 600.
    pub weight: u32,
    /// `#rrggbb`
    pub fill: &'static str,
    /// Where its position lies.
    pub anchor: Anchor,
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
pub struct Pen {
    /// `#rrggbb`
    pub stroke: &'static str,
    /// In pixels.
    pub width: f64,
    /// Lengths of dash and gap; empty for a whole line.
    pub dashes: &'static str,
}

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// To the right.
    pub width: f64,
    /// Downwards.
    pub height: f64,
}

/// Elements so far.
#[derive(Debug, Default)]
pub struct Drawing {
    out: String,
}

impl Face {
    /// Of the usual size.
    pub const fn plain(fill: &'static str, anchor: Anchor) -> Face {
        Face {
            size: 13.0,
            weight: 400,
            fill,
            anchor,
        }
    }

    /// The same, bold.
    pub const fn bold(self) -> Face {
        Face { weight: 600, ..self }
    }
}

impl Pen {
    /// A whole line.
    pub const fn new(stroke: &'static str, width: f64) -> Pen {
        Pen {
            stroke,
            width,
            dashes: "",
        }
    }
}

impl Drawing {
    /// A text; it is escaped here.
    pub fn text(&mut self, x: f64, y: f64, face: Face, text: &str) {
        let anchor = match face.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.out,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{}" font-weight="{}" fill="{}" text-anchor="{anchor}">{}</text>"#,
            face.size,
            face.weight,
            face.fill,
            escape(text)
        );
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), pen: Pen) {
        let path = format!("M{:.1} {:.1}L{:.1} {:.1}", from.0, from.1, to.0, to.1);
        self.path("line", &path, pen);
    }

    /// Any line; `data` is a path's.
    pub fn path(&mut self, class: &str, data: &str, pen: Pen) {
        if data.is_empty() {
            return;
        }
        let dashes = match pen.dashes {
            "" => String::new(),
            dashes => format!(r#" stroke-dasharray="{dashes}""#),
        };
        let _ = writeln!(
            self.out,
            r#"<path class="{}" d="{data}" fill="none" stroke="{}" stroke-width="{}" stroke-linejoin="round"{dashes}/>"#,
            escape(class),
            pen.stroke,
            pen.width
        );
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, at: (f64, f64), fill: &str) {
        let _ = writeln!(
            self.out,
            r#"<circle class="{}" cx="{:.1}" cy="{:.1}" r="2" fill="{fill}"/>"#,
            escape(class),
            at.0,
            at.1
        );
    }

    /// A filled rectangle, with what it means where that is worth saying.
    pub fn area(&mut self, class: &str, area: Area, fill: &str, meaning: Option<&str>) {
        let _ = write!(
            self.out,
            r#"<rect class="{}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{fill}""#,
            escape(class),
            area.x,
            area.y,
            area.width,
            area.height
        );
        let _ = match meaning {
            Some(meaning) => writeln!(self.out, "><title>{}</title></rect>", escape(meaning)),
            None => writeln!(self.out, "/>"),
        };
    }

    /// Everything as a document with a ground of its own, so that it reads the same where a page is dark.
    pub fn document(self, width: f64, height: f64, title: &str, description: &str) -> String {
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" role="img" aria-labelledby="title description" font-family="sans-serif">
<title id="title">{}</title>
<desc id="description">{}</desc>
<rect width="100%" height="100%" fill="#ffffff"/>
{}</svg>
"##,
            escape(title),
            escape(description),
            self.out
        )
    }
}

/// Text as XML takes it. Characters that XML 1.0 has no way to write become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// At most `most` characters, the last of them an ellipsis where some are left out.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
