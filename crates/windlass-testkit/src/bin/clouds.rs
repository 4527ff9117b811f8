//! The clouds for tests by hand: `cargo xtask clouds`. Runs until Ctrl-C and shows every request.
//!
//! For each way of proving an identity it writes a file to source and a request as a kubelet sends it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use windlass_testkit::clouds::{Call, Clouds, Setup, Way};
use windlass_testkit::images::small;

/// Pause between two looks at the requests.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    let clouds = Clouds::start();
    clouds.place(&small("by hand").bundle(), "team/app", "v1");
    let folder = clouds.folder().to_owned();
    writeln!(
        out,
        "The registry behind every host is http://{}; nobody gets in without a login.",
        clouds.registry().host()
    )?;
    writeln!(out, "Files are in {}; they go with this program.\n", folder.display())?;
    writeln!(
        out,
        "Source one of these, then run the command beside it, or `windlass pull $IMAGE` (of Azure's ways only azure-secret: the \
         others need flags that pull does not have):\n"
    )?;
    for way in Way::ALL {
        let setup = clouds.setup(way);
        let request = folder.join(format!("{}.json", way.name()));
        fs::write(&request, setup.request("v1").to_string()).expect("a file");
        let script = folder.join(format!("{}.sh", way.name()));
        fs::write(&script, lines(&clouds, &setup)).expect("a file");
        writeln!(out, "# {}\n. {}", way.describe(), script.display())?;
        writeln!(out, "{}\n", command(&setup, &request))?;
    }
    writeln!(out, "Requests so far, until Ctrl-C:")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                _ = &mut interrupted => return Ok(()),
                () = tokio::time::sleep(LOOK_PAUSE) => {}
            }
            for call in clouds.take_calls() {
                writeln!(out, "  {}", line(&call))?;
            }
        }
    })
}

/// The variables, to be sourced by a shell.
fn lines(clouds: &Clouds, setup: &Setup) -> String {
    // What an earlier file set would lead elsewhere.
    let mut text = String::from(
        "unset $(env | sed -n 's/^\\(\\(AWS\\|GCE\\|AZURE\\|WINDLASS_CREDENTIALS\\)_[A-Z0-9_]*\\)=.*/\\1/p')\n",
    );
    let hosts = ("WINDLASS_HOSTS_DIR".to_owned(), clouds.hosts_dir().display().to_string());
    let image = ("IMAGE".to_owned(), setup.image.clone());
    // A machine that is not in the cloud does not ask it by itself.
    let on = match (setup.cloud, setup.arguments.first()) {
        ("ecr", _) => ("WINDLASS_CREDENTIALS_ECR".to_owned(), "on".to_owned()),
        ("acr", Some(file)) => ("WINDLASS_CREDENTIALS_AZURE_CONFIG".to_owned(), file.clone()),
        _ => ("WINDLASS_CREDENTIALS_GCP".to_owned(), "on".to_owned()),
    };
    for (name, value) in setup.environment.iter().chain([&hosts, &image, &on]) {
        text.push_str(&format!("export {name}='{value}'\n"));
    }
    text
}

/// The provider, asked as a kubelet asks.
fn command(setup: &Setup, request: &Path) -> String {
    let mut words = vec!["windlass credential-provider".to_owned(), setup.cloud.to_owned()];
    words.extend(setup.arguments.iter().cloned());
    format!("{} < {}", words.join(" "), request.display())
}

fn line(call: &Call) -> String {
    let who = call.who.as_deref().unwrap_or("-");
    format!("{} {} {} -> {} {who}", call.service.name(), call.method, call.path, call.status)
}
