//! The row of a device whose producer died without its last word.

use isochrone_model::row::SendRow;

/// What is known for sure: it sent what its last row says, or what a consumer saw, whichever is more.
///
/// `next`: the highest sequence received plus one. Nothing is queued any more; what the schedule held beyond is unknown.
pub fn rebuilt(row: &SendRow, next: u64, qos: u8) -> SendRow {
    let sent = row.sent.max(next);
    SendRow {
        sent,
        queued: 0,
        scheduled: sent + row.unsent,
        unconfirmed: if qos == 0 {
            0
        } else {
            sent.saturating_sub(row.acked + row.refused)
        },
        vanished: true,
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever was known, the rebuilt row meets its equations, never says less was sent, and is rebuilt only once.
        #[test]
        fn a_rebuilt_row_is_equal_and_final(
            sent in 0_u64..1000, acked_share in 0_u64..=100, unsent in 0_u64..1000, queued in 0_u64..1000, next in 0_u64..2000, qos in 0_u8..3,
        ) {
            let acked = if qos == 0 { 0 } else { sent * acked_share / 100 };
            let row = SendRow { scheduled: sent + unsent + queued, sent, unsent, queued, acked, ..SendRow::default() };
            let rebuilt_row = rebuilt(&row, next, qos);
            prop_assert_eq!(rebuilt_row.scheduled, rebuilt_row.sent + rebuilt_row.unsent + rebuilt_row.queued);
            if qos > 0 {
                prop_assert_eq!(rebuilt_row.sent, rebuilt_row.acked + rebuilt_row.refused + rebuilt_row.unconfirmed);
            }
            prop_assert!(rebuilt_row.sent >= row.sent && rebuilt_row.sent >= next && rebuilt_row.vanished);
            prop_assert_eq!(&rebuilt(&rebuilt_row, next, qos), &rebuilt_row);
        }
    }
}
