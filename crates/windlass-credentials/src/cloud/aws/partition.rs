//! Amazon's partitions: which regions they have, and how their services' hosts are called.
//!
//! Source of truth: the endpoint rules in the AWS SDKs (`partitions.json`, the rule sets of ECR and STS).
//!
//! Invariants: `each_partition_has_its_own_sts`, `a_role_is_assumed_in_its_own_partition`.

use crate::cloud::CloudError;

/// One partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// As ARNs name it.
    pub(super) name: &'static str,
    /// What its regions begin with.
    prefix: &'static str,
    /// The domain of its services.
    suffix: &'static str,
    /// The domain of those that speak IPv6 too.
    dual_stack: Option<&'static str>,
    /// A region that always answers.
    main_region: &'static str,
}

const fn partition(
    name: &'static str,
    prefix: &'static str,
    suffix: &'static str,
    dual_stack: Option<&'static str>,
    main_region: &'static str,
) -> Partition {
    Partition { name, prefix, suffix, dual_stack, main_region }
}

/// The first whose prefix fits counts; the last one fits always.
static PARTITIONS: [Partition; 8] = [
    partition("aws-cn", "cn-", "amazonaws.com.cn", Some("api.amazonwebservices.com.cn"), "cn-north-1"),
    partition("aws-us-gov", "us-gov-", "amazonaws.com", Some("api.aws"), "us-gov-west-1"),
    partition("aws-eusc", "eusc-", "amazonaws.eu", None, "eusc-de-east-1"),
    partition("aws-iso", "us-iso-", "c2s.ic.gov", None, "us-iso-east-1"),
    partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", None, "us-isob-east-1"),
    partition("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", None, "eu-isoe-west-1"),
    partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", None, "us-isof-south-1"),
    partition("aws", "", "amazonaws.com", Some("api.aws"), "us-east-1"),
];

/// Which of a service's endpoints an operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// With validated cryptography (`AWS_USE_FIPS_ENDPOINT`).
    pub(super) fips: bool,
    /// With IPv6 (`AWS_USE_DUALSTACK_ENDPOINT`).
    pub(super) dual_stack: bool,
}

impl Partition {
    /// The partition of a region.
    pub(super) fn of_region(region: &str) -> &'static Partition {
        let fits = |p: &&Partition| region.starts_with(p.prefix);
        // The last one has an empty prefix.
        PARTITIONS.iter().find(fits).unwrap_or(&PARTITIONS[PARTITIONS.len() - 1])
    }

    /// The host of the STS in a region.
    pub(super) fn sts_host(&self, region: &str, variant: Variant) -> String {
        // GovCloud's only STS is a FIPS one.
        let fips = if variant.fips && self.name != "aws-us-gov" { "-fips" } else { "" };
        let suffix = self.dual_stack.filter(|_| variant.dual_stack).unwrap_or(self.suffix);
        format!("sts{fips}.{region}.{suffix}")
    }
}

/// Reads a region that `what` gave; it becomes part of a host's name.
///
/// # Errors
/// [`CloudError::Settings`] names `what`.
pub(super) fn check_region(what: &str, region: &str) -> Result<(), CloudError> {
    let label = !region.is_empty()
        && region.len() <= 40
        && !region.starts_with('-')
        && !region.ends_with('-')
        && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let problem = "holds no region: letters, digits and hyphens, as in eu-west-1".to_owned();
    if label { Ok(()) } else { Err(CloudError::Settings { what: what.to_owned(), problem }) }
}

/// The partition that a role's ARN names.
///
/// # Errors
/// [`CloudError::Settings`] names `what` gave the ARN.
pub(super) fn of_role<'a>(what: &str, arn: &'a str) -> Result<&'a str, CloudError> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, iam, region, account, role) = (next(), next(), next(), next(), next(), next());
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let named =
        role.strip_prefix("role/").is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
    if arn == "arn" && partition.starts_with("aws") && iam == "iam" && region.is_empty() && digits && named {
        return Ok(partition);
    }
    let problem = "holds no role: write arn:aws:iam::ACCOUNT:role/NAME".to_owned();
    Err(CloudError::Settings { what: what.to_owned(), problem })
}

/// Where a role of `partition` is assumed: the first of the regions that belongs to it, or its own main one.
pub(super) fn region_for<'a>(partition: &str, regions: impl IntoIterator<Item = &'a str>) -> &'a str {
    let fits = |region: &&str| Partition::of_region(region).name == partition;
    let main = PARTITIONS.iter().find(|p| p.name == partition).map_or("us-east-1", |p| p.main_region);
    regions.into_iter().find(fits).unwrap_or(main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_own_sts() {
        let plain = Variant::default();
        let fips = Variant { fips: true, dual_stack: false };
        let dual = Variant { fips: false, dual_stack: true };
        let table = [
            ("eu-west-1", plain, "sts.eu-west-1.amazonaws.com"),
            ("us-east-2", fips, "sts-fips.us-east-2.amazonaws.com"),
            ("us-east-2", dual, "sts.us-east-2.api.aws"),
            ("us-gov-west-1", fips, "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", plain, "sts.cn-north-1.amazonaws.com.cn"),
            ("cn-northwest-1", dual, "sts.cn-northwest-1.api.amazonwebservices.com.cn"),
            ("eusc-de-east-1", dual, "sts.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", plain, "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", plain, "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", plain, "sts.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", plain, "sts.us-isof-south-1.csp.hci.ic.gov"),
        ];
        for (region, variant, want) in table {
            assert_eq!(Partition::of_region(region).sts_host(region, variant), want);
        }
    }

    #[test]
    fn a_role_is_assumed_in_its_own_partition() {
        assert_eq!(region_for("aws", ["cn-north-1", "eu-west-1", "us-east-1"]), "eu-west-1");
        assert_eq!(region_for("aws-cn", ["eu-west-1"]), "cn-north-1");
        assert_eq!(region_for("aws-new", ["eu-west-1"]), "us-east-1");
    }

    #[test]
    fn roles_and_regions_are_checked() {
        for (arn, want) in [
            ("arn:aws:iam::123456789012:role/a/b/node", Some("aws")),
            ("arn:aws-cn:iam::123456789012:role/x", Some("aws-cn")),
            ("arn:aws:iam::123456789012:user/x", None),
            ("arn:aws:iam::12345678901:role/x", None),
            ("arn:aws:iam::123456789012:role/", None),
            ("arn:aws:iam::123456789012:role/a b", None),
            ("node-role", None),
            ("", None),
        ] {
            assert_eq!(of_role("X", arn).ok(), want, "{arn}");
        }
        check_region("X", "ap-southeast-2").unwrap();
        for region in ["", "evil.example/", "-a", "a_b", "US-EAST-1"] {
            assert!(check_region("X", region).is_err(), "{region}");
        }
    }
}
