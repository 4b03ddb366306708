//! What an examination finds, and how to mend it.

/// One line of `isochrone doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// How to mend it; `None` when it is well.
    pub mend: Option<String>,
    /// A run cannot work like this.
    pub fatal: bool,
}

impl Finding {
    /// It is well.
    pub fn good(what: &str, found: &str) -> Finding {
        Finding {
            what: what.to_owned(),
            found: found.to_owned(),
            mend: None,
            fatal: false,
        }
    }

    /// A run works, but not as well as it could.
    pub fn mend(what: &str, found: &str, mend: &str) -> Finding {
        Finding {
            mend: Some(mend.to_owned()),
            ..Finding::good(what, found)
        }
    }

    /// A run cannot work.
    pub fn fails(what: &str, found: &str, mend: &str) -> Finding {
        Finding {
            fatal: true,
            ..Finding::mend(what, found, mend)
        }
    }
}
