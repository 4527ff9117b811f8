//! Services, and hosts of registries.

/// A service of a cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Amazon's API of private registries.
    Ecr,
    /// Amazon's API of public registries.
    EcrPublic,
    /// Amazon's exchange of identities.
    Sts,
    /// The metadata server of an EC2 instance, version 2.
    Imds,
    /// The credentials of a container: EKS Pod Identity, ECS.
    Container,
    /// The metadata server of a Google machine.
    GceMetadata,
    /// Google's exchange of identities.
    GoogleSts,
    /// The metadata server of an Azure machine.
    AzureImds,
    /// Microsoft Entra's token service.
    Aad,
    /// A login server of Azure's registries: the challenge and the exchange.
    Acr,
    /// The login server of a registry in the custom cloud.
    AcrCustom,
    /// Azure's resource manager, which describes a cloud.
    Arm,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 12] = [
        Service::Ecr,
        Service::EcrPublic,
        Service::Sts,
        Service::Imds,
        Service::Container,
        Service::GceMetadata,
        Service::GoogleSts,
        Service::AzureImds,
        Service::Aad,
        Service::Acr,
        Service::AcrCustom,
        Service::Arm,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Service::Ecr => "ecr",
            Service::EcrPublic => "ecr-public",
            Service::Sts => "sts",
            Service::Imds => "imds",
            Service::Container => "container",
            Service::GceMetadata => "gce-metadata",
            Service::GoogleSts => "google-sts",
            Service::AzureImds => "azure-imds",
            Service::Aad => "aad",
            Service::Acr => "acr",
            Service::AcrCustom => "acr-custom",
            Service::Arm => "arm",
        }
    }

    /// Whether it is one that a machine finds at a fixed address and asks without TLS.
    pub fn is_metadata(self) -> bool {
        match self {
            Service::Imds | Service::Container | Service::GceMetadata | Service::AzureImds => true,
            Service::Ecr
            | Service::EcrPublic
            | Service::Sts
            | Service::GoogleSts
            | Service::Aad
            | Service::Acr
            | Service::AcrCustom
            | Service::Arm => false,
        }
    }
}

/// A private ECR registry.
pub const ECR_HOST: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
/// The same with validated cryptography, in another region.
pub const ECR_FIPS_HOST: &str = "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com";
/// ECR Public.
pub const ECR_PUBLIC_HOST: &str = "public.ecr.aws";
/// An Artifact Registry host.
pub const GAR_HOST: &str = "europe-west3-docker.pkg.dev";
/// A Container Registry host.
pub const GCR_HOST: &str = "eu.gcr.io";
/// A login server.
pub const ACR_HOST: &str = "contoso.azurecr.io";

/// A login server in the custom cloud that the resource manager describes.
pub const ACR_CUSTOM_HOST: &str = "contoso.azurecr.custom.example";

/// Hosts for which `hosts.toml` files lead to the registry.
pub const HOSTS: [&str; 7] = [ECR_HOST, ECR_FIPS_HOST, ECR_PUBLIC_HOST, GAR_HOST, GCR_HOST, ACR_HOST, ACR_CUSTOM_HOST];
