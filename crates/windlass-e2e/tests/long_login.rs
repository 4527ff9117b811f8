//! A login of sixty seconds and a pull that lasts longer, second by second. Slow, so it runs where long tests are wanted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use windlass_e2e::world::{World, end};
use windlass_registry::route::RouteKind;
use windlass_testkit::clouds::{Clouds, GAR_HOST, Service, Way};
use windlass_testkit::images::{Entry, Image, Layer, incompressible};
use windlass_testkit::tools::skipped;

/// Life of each login.
const LIFE: Duration = Duration::from_secs(60);
/// What the line carries.
const BYTES_PER_SECOND: usize = 256 * 1024;
/// How long the pull lasts at least, by the bytes that it moves.
const LASTS: Duration = Duration::from_secs(70);
/// Layers of the image.
const LAYERS: usize = 7;
/// Longest time for all of it.
const LIMIT: Duration = Duration::from_secs(300);

/// A line that carries no more than so many bytes a second to whoever asks.
fn slow_line(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let turn = Arc::new(Mutex::new(()));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { return };
            let (from_client, to_server) = (client.try_clone(), server.try_clone());
            let (Ok(from_client), Ok(to_server)) = (from_client, to_server) else { return };
            std::thread::spawn(move || carry(from_client, to_server, None));
            let turn = turn.clone();
            std::thread::spawn(move || carry(server, client, Some(&turn)));
        }
    });
    address
}

/// Carries bytes until one end closes; with a turn, slowly.
fn carry(mut from: TcpStream, mut to: TcpStream, turn: Option<&Mutex<()>>) {
    let mut piece = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        if let Some(turn) = turn {
            let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
            std::thread::sleep(Duration::from_secs_f64(read as f64 / BYTES_PER_SECOND as f64));
        }
        if to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    // The other end may have gone first.
    let _gone = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_pull_lasts_longer_than_its_login_of_sixty_seconds() {
    if std::env::var_os("WINDLASS_LONG_TESTS").is_none() {
        skipped("a_pull_lasts_longer_than_its_login_of_sixty_seconds", "WINDLASS_LONG_TESTS is not set");
        return;
    }
    let clouds = Clouds::build().basic().start();
    clouds.set(|settings| settings.google_life = LIFE);
    let bytes = BYTES_PER_SECOND * usize::try_from(LASTS.as_secs()).expect("few") / LAYERS;
    let layer = |n: usize| Layer::new([Entry::file(format!("f{n}"), incompressible(bytes, n as u64))]).level(1);
    let image = (0..LAYERS).map(layer).fold(Image::build(), |image, layer| image.layer(layer)).finish();
    clouds.place(&image.bundle(), "team/large", "v1");

    let world = World::new();
    let line = slow_line(clouds.registry().addr());
    let hosts = world.make_dir("slow").join(GAR_HOST);
    std::fs::create_dir(&hosts).expect("a directory");
    std::fs::write(hosts.join("hosts.toml"), format!("server = \"http://{line}\"\n")).expect("a file");
    let setup = clouds.setup(Way::GoogleMachine);
    let mut command = world.command(["pull", "--quiet", &format!("{GAR_HOST}/team/large:v1")]);
    command.env("WINDLASS_HOSTS_DIR", world.path("slow")).envs(setup.environment.iter().cloned());
    let began = Instant::now();
    let mut child = command.spawn().expect("the program starts");
    assert!(end(&mut child, began + LIMIT).success());
    assert!(began.elapsed() > LIFE, "it lasted {:?} only", began.elapsed());

    assert!(clouds.count(Service::GceMetadata) >= 2, "asked for again: {:?}", clouds.calls());
    let requests = clouds.registry().requests();
    assert!(requests.iter().any(|request| request.route == RouteKind::Blob && request.status == 401), "a login ended");
    let whole = requests.iter().filter(|request| request.route == RouteKind::Blob && request.status.is_success());
    assert!(whole.count() <= LAYERS + 1 + 3, "what was there stayed; at most the layers in flight went on by range");
}
