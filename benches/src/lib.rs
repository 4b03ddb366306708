//! Side-by-side measurements of what happens for every message. See `README.md` beside this file.
