//! Which Windows builds run on which.
//!
//! Source of truth: containerd/platforms `platform_windows_compat.go`.

/// Windows Server 2022, the first long-term release that runs containers of other builds.
const LTSC_2022: u32 = 20348;
/// The long-term releases that bound what a later host can run, in order.
const LTSC_RELEASES: [u32; 2] = [LTSC_2022, 26100];

/// Whether an image built for `image` runs on a host of version `host` (`10.0.20348.1`).
///
/// An image without a version runs everywhere (host-process containers); a host without one is not asked.
pub(super) fn runs_on(host: Option<&str>, image: Option<&str>) -> bool {
    let (Some(host), Some(image)) = (host, image) else { return true };
    let (Some(host), Some(image)) = (parse(host), parse(image)) else { return host == image };
    if (host.0, host.1) != (image.0, image.1) {
        return false;
    }
    let (host, image) = (host.2, image.2);
    if host < LTSC_2022 {
        return host == image;
    }
    let oldest = LTSC_RELEASES.iter().rev().copied().find(|release| host > *release).unwrap_or(LTSC_2022);
    (oldest..=host).contains(&image)
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_match_by_the_rules_of_containerd() {
        let table = [
            (Some("10.0.17763.1"), Some("10.0.17763.999"), true),
            (Some("10.0.17763.1"), Some("10.0.17134.1"), false),
            (Some("10.0.20348.1"), Some("10.0.20348.5"), true),
            (Some("10.0.20348.1"), Some("10.0.17763.5"), false),
            (Some("10.0.22621.1"), Some("10.0.20348.5"), true),
            (Some("10.0.26100.1"), Some("10.0.20348.5"), true),
            (Some("10.0.26200.1"), Some("10.0.20348.5"), false),
            (Some("10.0.20348.1"), Some("10.0.26100.5"), false),
            (Some("6.3.9600.1"), Some("10.0.9600.1"), false),
            (None, Some("10.0.1.1"), true),
            (Some("10.0.1.1"), None, true),
            (Some("odd"), Some("odd"), true),
            (Some("odd"), Some("10.0.1"), false),
        ];
        for (host, image, want) in table {
            assert_eq!(runs_on(host, image), want, "{image:?} on {host:?}");
        }
    }
}
