//! The models as tests. They are a library's, since its files bring tests of their own, which are not
//! for loom.

macro_rules! models {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            netpoller_loom::models::$name();
        })*
    };
}

models! {
    a_wake_is_never_lost_and_what_it_announces_is_seen
    wakes_of_two_machines_and_a_job_all_come_and_no_break_is_made_twice
    after_a_break_that_failed_the_next_wake_breaks_again
    after_a_break_that_failed_a_second_wake_of_the_same_machine_breaks_too
    a_job_that_is_sent_while_the_runtime_ends_runs_or_is_dropped
    a_clock_that_waits_for_blocking_jobs_learns_of_the_last
    no_more_connections_than_permits_and_each_waiter_gets_one
    a_waiter_that_gives_up_loses_no_permit
    each_connection_is_served_once_and_both_workers_learn_of_the_end
    a_worker_that_dies_leaves_what_it_has_not_served_to_the_other
    a_worker_learns_of_the_last_order_whichever_thread_gives_it
    a_quota_is_never_exceeded_and_all_is_given_back
    records_that_are_read_while_others_overwrite_them_are_whole_and_in_order
}
