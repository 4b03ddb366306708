//! The view on a terminal: a few lines below the prompt that stay there when the run is over.

use std::io::{Result, Stderr, stderr};

use ratatui::{
    Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    layout::{Constraint, Layout},
    style::{Style, Stylize},
    text::{Line, Span},
    widgets::{Gauge, Paragraph},
};

use super::figures::{Figures, pair};
use crate::text::count;

const LINES: u16 = 7;

/// An inline part of the terminal.
pub struct View {
    terminal: Terminal<CrosstermBackend<Stderr>>,
}

impl View {
    /// Takes a few lines below the cursor.
    pub fn open() -> Result<View> {
        let options = TerminalOptions {
            viewport: Viewport::Inline(LINES),
        };
        Ok(View {
            terminal: Terminal::with_options(CrosstermBackend::new(stderr()), options)?,
        })
    }

    /// Shows these figures instead of the last ones.
    pub fn draw(&mut self, figures: &Figures) {
        // A terminal that is gone is no reason to end a measurement.
        let _ = self.terminal.draw(|frame| {
            let [text, bar] =
                Layout::vertical([Constraint::Length(LINES - 1), Constraint::Length(1)]).areas(frame.area());
            frame.render_widget(Paragraph::new(lines(figures)), text);
            frame.render_widget(progress(figures), bar);
        });
    }
}

fn lines(figures: &Figures) -> Vec<Line<'static>> {
    let name = |text: &'static str| Span::styled(format!("{text:<14}"), Style::new().dim());
    let missing = figures.missing + figures.unsent;
    let trouble = |text: String, bad: bool| if bad { text.red().bold() } else { text.into() };
    let rate = format!(
        "{} msg/s out   {} msg/s in",
        count(figures.sent_rate.round() as u64),
        count(figures.received_rate.round() as u64)
    );
    let messages = format!(
        "{} sent   {} unique   {} missing   {} unsent",
        count(figures.sent),
        count(figures.unique),
        count(figures.missing),
        count(figures.unsent)
    );
    let connects = format!(
        "{} connects   {} failed   ",
        count(figures.connects.0),
        count(figures.connects.1)
    );
    vec![
        Line::from(vec![name("rate"), rate.bold()]),
        Line::from(vec![
            name("response"),
            format!("{}   p50 / p99 of the last second", pair(figures.response)).into(),
        ]),
        Line::from(vec![name("transit"), pair(figures.transit).into()]),
        Line::from(vec![
            name("late"),
            format!("{}   our own part", pair(figures.late)).into(),
        ]),
        Line::from(vec![name("messages"), trouble(messages, missing > 0)]),
        Line::from(vec![
            name("broker"),
            trouble(connects, figures.connects.1 > 0),
            trouble(
                figures.verdict.to_owned(),
                figures.verdict != "valid" && figures.verdict != "–",
            ),
        ]),
    ]
}

fn progress(figures: &Figures) -> Gauge<'static> {
    let (ratio, label) = match figures.state.as_str() {
        "open" if figures.left.is_none() && figures.planned.is_none() => {
            (0.0, format!("{}, until stopped", figures.course()))
        }
        "open" => (figures.done(), figures.course()),
        state => (
            1.0,
            figures
                .awaited
                .as_ref()
                .map_or_else(|| state.to_owned(), ToString::to_string),
        ),
    };
    Gauge::default()
        .ratio(ratio)
        .label(label)
        .gauge_style(Style::new().cyan())
}
