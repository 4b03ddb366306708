//! The contract of `isochrone_store::contract`, kept by every store: in memory, in Redis, in a Redis cluster.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod cases;
mod faults;
mod fixture;
mod server;

use std::sync::Arc;

use fixture::{TestClock, on};
use isochrone_store::{Store, memory::MemoryStore};
use server::{Cluster, Server};

macro_rules! contract {
    ($($module:ident :: $case:ident)+) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::cases::$module::$case(super::in_memory()).await;
            })+
        }

        mod redis {
            $(#[tokio::test]
            async fn $case() {
                let server = super::Server::start(&[]);
                super::cases::$module::$case(server.store()).await;
            })+
        }

        /// One cluster for all cases, each of which works on a run of its own or purges what it opened.
        #[tokio::test]
        async fn cluster() {
            let cluster = Cluster::start().await;
            $(
                let store = cluster.store();
                on(&format!("cluster: {}", stringify!($case)), cases::$module::$case(store.clone())).await;
                for run in store.runs().await.unwrap() {
                    store.purge(&run.run).await.unwrap();
                }
            )+
        }
    };
}

contract! {
    runs::a_run_opens_is_joined_and_closes
    runs::pins_and_states_refuse_by_name
    runs::unnamed_producers_share_the_newest_open_run
    runs::ordinals_are_the_lowest_free
    runs::expelled_members_vanish
    runs::changes_are_announced
    runs::the_clock_goes_on
    claims::topics_are_claimed_once
    claims::a_repeated_claim_brings_the_same
    claims::a_claim_tells_how_it_was_left
    claims::a_closed_topic_reopens_for_a_new_epoch
    claims::a_topic_that_a_device_joined_is_not_closed
    claims::a_whole_partition_has_one_holder
    claims::a_shared_topic_brings_all_its_devices
    claims::nobody_settles_what_is_held
    leases::renewals_never_create_a_row
    leases::eviction_compares_the_counter
    leases::a_row_made_again_has_another_counter
    leases::a_row_goes_when_nothing_is_held
    runs::notes_are_kept_once
    samples::a_flush_is_stored_once
    samples::a_total_ahead_counts_as_dropped
    samples::a_lost_token_fences_only_its_topic
    samples::a_full_partition_sheds_and_counts
    samples::a_slow_sink_alone_loses_what_it_holds_back
    samples::a_sink_that_joins_amid_a_drop_misses_no_count
    samples::what_is_fenced_drops_nothing_for_slow_sinks
    sends::last_words_make_vanished_rows_exact
    sends::what_was_sent_is_unplotted_until_its_cut
    samples::an_entry_is_pending_until_its_cut
    plotting::one_plotter_holds_a_partition
    plotting::what_is_finished_is_held_by_nobody_again
    plotting::cuts_follow_each_other
    plotting::entries_go_when_all_cursors_have_passed
    plotting::a_sink_that_joins_counts_what_it_missed
}

fn in_memory() -> Arc<dyn Store> {
    MemoryStore::new(Arc::new(TestClock::default()))
}
