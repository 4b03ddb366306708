//! What is known of the values beside their buckets, exactly.

/// Count, sign, extremes and sums. All additions are associative, so parts merge without loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    pub count: u64,
    pub negative: u64,
    /// Zero while `count` is.
    pub min: i64,
    /// Zero while `count` is.
    pub max: i64,
    pub sum: i128,
    /// Of the squares; stands still at its maximum (2^128 ns² is 10^20 values of a second).
    pub squares: u128,
}

impl Moments {
    pub fn record(&mut self, value: i64, count: u64) {
        if count == 0 {
            return;
        }
        let magnitude = u128::from(value.unsigned_abs());
        self.merge(&Moments {
            count,
            negative: if value < 0 { count } else { 0 },
            min: value,
            max: value,
            sum: i128::from(value).wrapping_mul(i128::from(count)),
            squares: (magnitude * magnitude).saturating_mul(u128::from(count)),
        });
    }

    pub fn merge(&mut self, other: &Moments) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        self.count = self.count.saturating_add(other.count);
        self.negative = self.negative.saturating_add(other.negative);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum = self.sum.wrapping_add(other.sum);
        self.squares = self.squares.saturating_add(other.squares);
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// Of the population. Integers first: the difference of two large near-equal products would lose every digit in floating point.
    pub fn stddev(&self) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let count = u128::from(self.count);
        let sum = self.sum.unsigned_abs();
        let exact = count.checked_mul(self.squares).zip(sum.checked_mul(sum));
        let n = self.count as f64;
        let variance = match exact {
            Some((squares, sum)) => squares.saturating_sub(sum) as f64 / n / n,
            None => self.squares as f64 / n - (self.sum as f64 / n).powi(2),
        };
        Some(variance.max(0.0).sqrt())
    }
}
