//! Every way of proving an identity.

use serde_json::{Value as Json, json};

use super::Service;

/// A way of proving an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Amazon: keys in variables.
    AwsKeys,
    /// Amazon: keys in a profile of the shared files.
    AwsProfile,
    /// Amazon: a profile that takes a role with the keys of another.
    AwsProfileRole,
    /// Amazon: a profile that takes a role with a token in a file.
    AwsProfileToken,
    /// Amazon: a profile whose keys a program brings.
    AwsProfileProgram,
    /// Amazon: a role with a token in a file, both from variables (IRSA).
    AwsWebIdentity,
    /// Amazon: the end-point of a container, its token in a file (EKS Pod Identity).
    AwsContainer,
    /// Amazon: the end-point of a container, its token in a variable (ECS).
    AwsContainerVariable,
    /// Amazon: the metadata server of an instance.
    AwsInstance,
    /// Amazon: the service account's token that comes with the request, and a role in its annotations.
    AwsAccount,
    /// Amazon: keys in variables, for the public registry.
    AwsPublic,
    /// Google: the metadata server of a machine.
    GoogleMachine,
    /// Google: the service account's token that comes with the request.
    GoogleAccount,
    /// Azure: the identity of the machine itself.
    AzureMachine,
    /// Azure: an identity that was assigned to the machine, by its client ID.
    AzureAssigned,
    /// Azure: the same by its resource ID.
    AzureAssignedResource,
    /// Azure: the service account's token that comes with the request.
    AzureAccount,
    /// Azure: an application and its secret.
    AzureSecret,
    /// Azure: the identity of the machine, in a cloud that a resource manager describes.
    AzureCustomCloud,
}

/// The service account's part of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its token.
    pub token: Option<String>,
    /// The audience that the token is for.
    pub audience: String,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
}

/// What leads a program to one way.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `ecr`, `gcp` or `acr`.
    pub cloud: &'static str,
    /// The image to ask for.
    pub image: String,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Arguments of the provider after its name.
    pub arguments: Vec<String>,
    /// The service account's part of the request.
    pub request: Request,
}

impl Setup {
    /// The request, as a kubelet writes it.
    pub fn request(&self, version: &str) -> Json {
        let mut request = json!({
            "kind": "CredentialProviderRequest",
            "apiVersion": format!("credentialprovider.kubelet.k8s.io/{version}"),
            "image": self.image,
        });
        if let Some(token) = &self.request.token {
            request["serviceAccountToken"] = token.as_str().into();
        }
        if !self.request.annotations.is_empty() {
            request["serviceAccountAnnotations"] =
                self.request.annotations.iter().map(|(k, v)| (k.clone(), Json::from(v.as_str()))).collect();
        }
        request
    }

    /// The registry's host.
    pub fn host(&self) -> &str {
        self.image.split('/').next().unwrap_or_default()
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn flag(mut self, name: &str, value: impl AsRef<str>) -> Setup {
        self.arguments.push(format!("{name}={}", value.as_ref()));
        self
    }
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 19] = [
        Way::AwsKeys,
        Way::AwsProfile,
        Way::AwsProfileRole,
        Way::AwsProfileToken,
        Way::AwsProfileProgram,
        Way::AwsWebIdentity,
        Way::AwsContainer,
        Way::AwsContainerVariable,
        Way::AwsInstance,
        Way::AwsAccount,
        Way::AwsPublic,
        Way::GoogleMachine,
        Way::GoogleAccount,
        Way::AzureMachine,
        Way::AzureAssigned,
        Way::AzureAssignedResource,
        Way::AzureAccount,
        Way::AzureSecret,
        Way::AzureCustomCloud,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// What it is.
    pub fn describe(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Way::AwsKeys => ("aws-keys", "Amazon: keys in variables"),
            Way::AwsProfile => ("aws-profile", "Amazon: keys in a profile of the shared files"),
            Way::AwsProfileRole => ("aws-profile-role", "Amazon: a profile that takes a role with the keys of another"),
            Way::AwsProfileToken => ("aws-profile-token", "Amazon: a profile that takes a role with a token in a file"),
            Way::AwsProfileProgram => ("aws-profile-program", "Amazon: a profile whose keys a program brings"),
            Way::AwsWebIdentity => ("aws-web-identity", "Amazon: a role with a token in a file (IRSA)"),
            Way::AwsContainer => ("aws-container", "Amazon: the end-point of a container (EKS Pod Identity)"),
            Way::AwsContainerVariable => ("aws-container-variable", "Amazon: the same, its token in a variable (ECS)"),
            Way::AwsInstance => ("aws-instance", "Amazon: the metadata server of an instance"),
            Way::AwsAccount => ("aws-account", "Amazon: the token in the request, and a role in its annotations"),
            Way::AwsPublic => ("aws-public", "Amazon: keys in variables, for the public registry"),
            Way::GoogleMachine => ("google-machine", "Google: the metadata server of a machine"),
            Way::GoogleAccount => ("google-account", "Google: the token in the request"),
            Way::AzureMachine => ("azure-machine", "Azure: the identity of the machine itself"),
            Way::AzureAssigned => {
                ("azure-assigned", "Azure: an identity that was assigned to the machine, by client ID")
            }
            Way::AzureAssignedResource => ("azure-assigned-resource", "Azure: the same by its resource ID"),
            Way::AzureAccount => ("azure-account", "Azure: the token in the request"),
            Way::AzureSecret => ("azure-secret", "Azure: an application and its secret"),
            Way::AzureCustomCloud => ("azure-custom", "Azure: a cloud that a resource manager describes"),
        }
    }

    /// Whether it needs what only a request of a kubelet brings.
    pub fn needs_request(self) -> bool {
        matches!(self, Way::AwsAccount | Way::GoogleAccount | Way::AzureAccount)
    }

    /// The service that gives the identity, as far as one is asked.
    pub fn identity_service(self) -> Option<Service> {
        match self {
            Way::AwsKeys | Way::AwsProfile | Way::AwsProfileProgram | Way::AwsPublic | Way::AzureSecret => None,
            Way::AwsProfileRole | Way::AwsProfileToken | Way::AwsWebIdentity | Way::AwsAccount => Some(Service::Sts),
            Way::AwsContainer | Way::AwsContainerVariable => Some(Service::Container),
            Way::AwsInstance => Some(Service::Imds),
            Way::GoogleMachine => Some(Service::GceMetadata),
            Way::GoogleAccount => Some(Service::GoogleSts),
            Way::AzureMachine | Way::AzureAssigned | Way::AzureAssignedResource | Way::AzureCustomCloud => {
                Some(Service::AzureImds)
            }
            Way::AzureAccount => Some(Service::Aad),
        }
    }
}
