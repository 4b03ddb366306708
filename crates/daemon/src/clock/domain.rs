//! Which processes share a monotonic clock.

use std::fs;

use isochrone_model::id::Domain;

/// Hash of boot id and time namespace: equal exactly where CLOCK_MONOTONIC is the same clock.
pub fn host_domain() -> Domain {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/time")
        .map(|link| link.display().to_string())
        .unwrap_or_default();
    domain_of(boot.trim(), &namespace)
}

/// FNV-1a, 32 bits.
fn domain_of(boot: &str, namespace: &str) -> Domain {
    let bytes = boot.bytes().chain([0]).chain(namespace.bytes());
    Domain(bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another boot or another time namespace is another clock.
    #[test]
    fn boots_and_namespaces_are_told_apart() {
        assert_eq!(domain_of("a", "time:[1]"), domain_of("a", "time:[1]"));
        assert_ne!(domain_of("a", "time:[1]"), domain_of("b", "time:[1]"));
        assert_ne!(domain_of("a", "time:[1]"), domain_of("a", "time:[2]"));
        assert_ne!(domain_of("ab", "c"), domain_of("a", "bc"));
    }

    /// The host's own domain does not change from call to call.
    #[test]
    fn the_host_has_one_domain() {
        assert_eq!(host_domain(), host_domain());
    }
}
