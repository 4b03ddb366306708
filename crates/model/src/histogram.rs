//! Signed sparse histogram.

/// Signed sparse histogram (see DESIGN).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {}
