//! The report as one picture: an SVG document that needs nothing beside it, for a ticket or a README.
//!
//! Elements are written by hand: what a plotting library draws has whole pixels for coordinates and neither title,
//! description nor classes.

mod axis;
mod drawing;
mod header;
mod legend;
mod panels;
mod points;
#[cfg(test)]
mod tests;

use isochrone_model::report::{Report, RunFacts};

use self::{
    drawing::{Drawing, HEIGHTS, WIDTH},
    panels::Panels,
    points::Points,
};

/// The picture of a run.
pub fn picture(facts: &RunFacts, report: &Report) -> String {
    let points = Points::of(&facts.totals);
    let mut body = Drawing::default();
    let top = header::draw(&mut body, report, &points, HEIGHTS.margin);
    let bottom = Panels::new(&points).draw(&mut body, top, report, &points);
    let title = format!("Isochrone: run {}", report.run);
    body.document(WIDTH, bottom + HEIGHTS.margin, &title, &header::summary(report))
}
