//! Every way of proving an identity, with what leads a program there.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::aws::{LASTING_KEY, metadata};
use super::{ACR_CUSTOM_HOST, ACR_HOST, Account, Clouds, ECR_HOST, ECR_PUBLIC_HOST, GAR_HOST, Service, azure, google};

/// The repository and tag of the examples.
const IMAGE: &str = "team/app:v1";
/// Life of the service accounts' tokens: those of pods live an hour, which is short for a session by hand.
const TOKEN_SECONDS: i64 = 24 * 3600;
/// A role of AWS.
const ROLE: &str = "arn:aws:iam::123456789012:role/puller";

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

    fn with(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    fn flag(mut self, name: &str, value: impl AsRef<str>) -> Setup {
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

impl Clouds {
    /// What leads a program to this way; files that it needs are written below [`Clouds::folder`].
    pub fn setup(&self, way: Way) -> Setup {
        match way {
            Way::AwsPublic => self.lasting(self.amazon(ECR_PUBLIC_HOST)),
            Way::AwsKeys => self.lasting(self.amazon(ECR_HOST)),
            Way::AwsProfile => {
                let text = format!("[profile-keys]\n{}", self.key_lines());
                self.profile(self.amazon(ECR_HOST), "profile-keys", &text, "")
            }
            Way::AwsProfileRole => {
                let text = format!("[source]\n{}", self.key_lines());
                let config =
                    format!("[profile taken]\nrole_arn = {ROLE}\nsource_profile = source\nregion = eu-central-1\n");
                self.profile(self.amazon(ECR_HOST), "taken", &text, &config)
            }
            Way::AwsProfileToken => {
                let token = self.token_file("profile-token", "sts.amazonaws.com");
                let config =
                    format!("[profile token]\nrole_arn = {ROLE}\nweb_identity_token_file = {}\n", token.display());
                self.profile(self.amazon(ECR_HOST), "token", "", &config)
            }
            Way::AwsProfileProgram => {
                let secret = self.shared.state().keys.lasting_secret().to_owned();
                let keys = json!({ "Version": 1, "AccessKeyId": LASTING_KEY, "SecretAccessKey": secret });
                let keys = self.file("program-keys.json", &keys.to_string());
                let config = format!("[profile program]\ncredential_process = /bin/cat {keys}\n");
                let mut setup = self.profile(self.amazon(ECR_HOST), "program", "", &config);
                setup.arguments.push("--allow-credential-process".to_owned());
                setup
            }
            Way::AwsWebIdentity => {
                let token = self.token_file("web-identity-token", "sts.amazonaws.com");
                self.amazon(ECR_HOST)
                    .with("AWS_ROLE_ARN", ROLE)
                    .with("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string())
                    .with("AWS_REGION", "eu-central-1")
            }
            Way::AwsContainer => {
                let token = self.token_file("container-token", metadata::CONTAINER_ACCOUNT);
                self.container().with("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display().to_string())
            }
            Way::AwsContainerVariable => {
                let token = self.token(metadata::CONTAINER_ACCOUNT);
                self.container().with("AWS_CONTAINER_AUTHORIZATION_TOKEN", token)
            }
            Way::AwsInstance => self.amazon(ECR_HOST),
            Way::AwsAccount => {
                let annotations = [("eks.amazonaws.com/ecr-role-arn", ROLE)];
                self.by_account(self.amazon(ECR_HOST), "sts.amazonaws.com", &annotations)
            }
            Way::GoogleMachine => self.google(),
            Way::GoogleAccount => {
                let setup = self.google().flag("--identity-provider", google::PROVIDER);
                let setup = setup.flag("--project-id", google::PROJECT);
                self.by_account(setup, &google::pool(), &[("iam.gke.io/enable-wi-image-pull", "true")])
            }
            Way::AzureMachine => self.azure(ACR_HOST, &json!({ "useManagedIdentityExtension": true })),
            Way::AzureAssigned => self.assigned(azure::ASSIGNED),
            Way::AzureAssignedResource => self.assigned(azure::ASSIGNED_RESOURCE),
            Way::AzureAccount => {
                let annotations = [
                    ("kubernetes.azure.com/acr-client-id", azure::CLIENT),
                    ("kubernetes.azure.com/acr-tenant-id", azure::TENANT),
                ];
                let setup = self.azure(ACR_HOST, &json!({ "useManagedIdentityExtension": true }));
                self.by_account(setup, azure::AUDIENCE, &annotations)
            }
            Way::AzureSecret => {
                let lines = json!({ "aadClientId": azure::CLIENT, "aadClientSecret": azure::CLIENT_SECRET });
                self.azure(ACR_HOST, &lines)
            }
            Way::AzureCustomCloud => {
                let lines = json!({
                    "cloud": "TestCloud",
                    "resourceManagerEndpoint": self.url(Service::Arm),
                    "useManagedIdentityExtension": true,
                });
                self.azure(ACR_CUSTOM_HOST, &lines)
            }
        }
    }

    fn amazon(&self, host: &str) -> Setup {
        let setup = empty("ecr", host)
            .with("AWS_ENDPOINT_URL_ECR", self.url(Service::Ecr))
            .with("AWS_ENDPOINT_URL_ECR_PUBLIC", self.url(Service::EcrPublic))
            .with("AWS_ENDPOINT_URL_STS", self.url(Service::Sts))
            .with("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.url(Service::Imds));
        match self.ca_file() {
            Some(file) => setup.with("AWS_CA_BUNDLE", file.display().to_string()),
            None => setup,
        }
    }

    fn lasting(&self, setup: Setup) -> Setup {
        let secret = self.shared.state().keys.lasting_secret().to_owned();
        setup.with("AWS_ACCESS_KEY_ID", LASTING_KEY).with("AWS_SECRET_ACCESS_KEY", secret)
    }

    fn key_lines(&self) -> String {
        let secret = self.shared.state().keys.lasting_secret().to_owned();
        format!("aws_access_key_id = {LASTING_KEY}\naws_secret_access_key = {secret}\n")
    }

    fn profile(&self, setup: Setup, name: &str, credentials: &str, config: &str) -> Setup {
        setup
            .with("AWS_SHARED_CREDENTIALS_FILE", self.file(&format!("{name}.credentials"), credentials))
            .with("AWS_CONFIG_FILE", self.file(&format!("{name}.config"), config))
            .with("AWS_PROFILE", name)
    }

    fn container(&self) -> Setup {
        let url = format!("{}{}", self.url(Service::Container), metadata::CONTAINER_PATH);
        self.amazon(ECR_HOST).with("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    }

    fn google(&self) -> Setup {
        let address = self.url(Service::GceMetadata).trim_start_matches("http://").to_owned();
        let setup = empty("gcp", GAR_HOST).with("GCE_METADATA_HOST", address);
        let setup = setup.flag("--google-sts-endpoint", self.url(Service::GoogleSts));
        self.with_ca(setup)
    }

    fn azure(&self, host: &str, lines: &Json) -> Setup {
        let mut file = json!({ "cloud": "AzurePublicCloud", "tenantId": azure::TENANT });
        if let (Some(file), Some(lines)) = (file.as_object_mut(), lines.as_object()) {
            file.extend(lines.clone());
        }
        // The name tells one from the next.
        let name =
            format!("azure-{:x}.json", lines.to_string().bytes().fold(7u64, |h, b| h.wrapping_mul(31) ^ u64::from(b)));
        let login_server = if host == ACR_HOST { Service::Acr } else { Service::AcrCustom };
        let mut setup = empty("acr", host);
        setup.arguments.push(self.file(&name, &file.to_string()));
        let setup = setup
            .flag("--azure-imds", self.url(Service::AzureImds))
            .flag("--aad-endpoint", self.url(Service::Aad))
            .flag("--acr-endpoint", format!("{host}={}", self.url(login_server)));
        self.with_ca(setup)
    }

    fn assigned(&self, id: &str) -> Setup {
        let lines = json!({ "useManagedIdentityExtension": true, "userAssignedIdentityID": id });
        self.azure(ACR_HOST, &lines)
    }

    fn with_ca(&self, setup: Setup) -> Setup {
        match self.ca_file() {
            Some(file) => setup.flag("--ca-file", file.display().to_string()),
            None => setup,
        }
    }

    /// The CA's certificate in a file, where there is a CA.
    pub fn ca_file(&self) -> Option<PathBuf> {
        let tls = self.tls.as_ref()?;
        Some(self.file("ca.pem", &tls.ca_pem).into())
    }

    fn by_account(&self, mut setup: Setup, audience: &str, annotations: &[(&str, &str)]) -> Setup {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        setup.request = Request { token: Some(self.token(audience)), audience: audience.to_owned(), annotations };
        setup
    }

    fn token(&self, audience: &str) -> String {
        self.account_token(&Account::new("team", "puller"), audience, TOKEN_SECONDS)
    }

    fn token_file(&self, name: &str, audience: &str) -> PathBuf {
        self.file(name, &self.token(audience)).into()
    }

    /// Writes a file of the folder; answers its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

fn empty(cloud: &'static str, host: &str) -> Setup {
    Setup {
        cloud,
        image: format!("{host}/{IMAGE}"),
        environment: Vec::new(),
        arguments: Vec::new(),
        request: Request::default(),
    }
}
