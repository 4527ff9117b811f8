//! The provider as a kubelet runs it, against the fakes of the clouds.

use std::fs::File;
use std::process::Command;

use serde_json::Value as Json;
use windlass_e2e::world::{Answer, World, answer};
use windlass_testkit::canary::Canary;
use windlass_testkit::clouds::{Clouds, Setup, Way};

/// The version that requests have unless a test is about versions.
pub(crate) const VERSION: &str = "v1";

/// A machine in the clouds.
pub(crate) struct Scene {
    pub(crate) clouds: Clouds,
    pub(crate) world: World,
}

impl Scene {
    /// Clouds over plain HTTP.
    pub(crate) fn new() -> Scene {
        Scene::of(Clouds::start())
    }

    /// These clouds.
    pub(crate) fn of(clouds: Clouds) -> Scene {
        Scene { clouds, world: World::new() }
    }

    /// Asks the provider for a login on this way.
    pub(crate) fn ask(&self, way: Way) -> Asked {
        self.ask_as(&self.clouds.setup(way), VERSION)
    }

    /// The same with a setup that a test has changed.
    pub(crate) fn ask_as(&self, setup: &Setup, version: &str) -> Asked {
        let mut command = self.world.command(["credential-provider", setup.cloud]);
        command.args(&setup.arguments);
        self.finish(command, setup, version)
    }

    /// Gives a command the variables and the request, and runs it.
    pub(crate) fn finish(&self, mut command: Command, setup: &Setup, version: &str) -> Asked {
        let request = self.world.write("request.json", setup.request(version).to_string());
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(File::open(request).expect("it was written"));
        Asked(answer(command, None))
    }

    /// Whether the registry accepts a login.
    #[track_caller]
    pub(crate) fn accepts(&self, login: &Login) -> bool {
        self.clouds.lets_in(&login.user, &login.password)
    }

    /// None of the secrets given out is in what was written.
    #[track_caller]
    pub(crate) fn assert_no_secret(&self, what: &str, text: &str) {
        for secret in self.clouds.secrets() {
            Canary::new(&secret).assert_absent(what, text);
        }
    }
}

/// What the provider answered.
pub(crate) struct Asked(pub(crate) Answer);

/// A login as the provider answers it.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    /// What the kubelet may keep it by.
    pub(crate) key_type: String,
    /// How long, a Go duration; `None`: as its configuration says.
    pub(crate) cache: Option<String>,
}

impl Asked {
    /// The login for this host, which it has to have given.
    #[track_caller]
    pub(crate) fn login(&self, host: &str) -> Login {
        let Asked(answer) = self;
        assert_eq!(answer.code(), Some(0), "{answer}");
        let json = answer.json();
        assert_eq!(json["kind"], "CredentialProviderResponse", "{answer}");
        let auth = &json["auth"][host];
        let text = |value: &Json| value.as_str().unwrap_or_else(|| panic!("no login for {host}: {answer}")).to_owned();
        Login {
            user: text(&auth["username"]),
            password: text(&auth["password"]),
            key_type: text(&json["cacheKeyType"]),
            cache: json["cacheDuration"].as_str().map(str::to_owned),
        }
    }

    /// It has to have failed as a kubelet expects it: status 1, no answer, one line that has these words.
    #[track_caller]
    pub(crate) fn fails_with(&self, words: &str) {
        let Asked(answer) = self;
        assert_eq!(answer.code(), Some(1), "{answer}");
        assert_eq!(answer.stdout, "", "{answer}");
        assert_eq!(answer.stderr.lines().count(), 1, "{answer}");
        assert!(answer.stderr.to_lowercase().contains(&words.to_lowercase()), "not {words:?}: {answer}");
    }

    /// It has to have answered that the image is none of its own.
    #[track_caller]
    pub(crate) fn is_nothing(&self) {
        let Asked(answer) = self;
        assert_eq!(answer.code(), Some(0), "{answer}");
        let json = answer.json();
        assert!(json["auth"].as_object().is_none_or(serde_json::Map::is_empty), "{answer}");
        assert_eq!((&json["cacheDuration"], &json["cacheKeyType"]), (&"0s".into(), &"Registry".into()), "{answer}");
    }
}
