//! What leads a program to each way: variables, arguments, files.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::aws::{LASTING_KEY, metadata};
use super::{
    ACR_CUSTOM_HOST, ACR_HOST, Account, Clouds, ECR_HOST, ECR_PUBLIC_HOST, GAR_HOST, Request, Service, Setup, Way,
    azure, google,
};

/// The repository and tag of the examples.
const IMAGE: &str = "team/app:v1";
/// Life of the service accounts' tokens: those of pods live an hour, which is short for a session by hand.
const TOKEN_SECONDS: i64 = 24 * 3600;
/// A role of AWS.
const ROLE: &str = "arn:aws:iam::123456789012:role/puller";

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
