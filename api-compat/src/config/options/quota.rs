//! Quotas, as far as a deletion gives them back.

use crate::config::registry::{default, options};

options! {
    /// Reservations and usages (Cinder's `quota.py`).
    pub struct Quota in "DEFAULT" {
        /// Seconds after which a quota reservation that nobody committed expires.
        reservation_expire: u64 = default("86400"),
        /// Number of reservations after which a usage is counted anew; 0 never does.
        until_refresh: u64 = default("0"),
        /// Seconds after which a usage is counted anew; 0 never does.
        max_age: u64 = default("0"),
    }
}
