//! A small store whose files are damaged, and what opening, looking and checking make of it.
//!
//! Two stores are made once for each process, one with directories and one with image files, and the one that the first
//! byte names is copied for each input; the input is a list of damages. Nothing may panic, every error has a reason, and
//! an image that is called present after a full check really is. Nothing is mounted: that image files can be is written
//! into the note of it.

mod trees;

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};
use std::time::Duration;

use windlass_core::digest::Digest;
use windlass_store::{
    BlobKind, Depth, ImageCommit, LayerClaim, LayerKey, LeaseOptions, Name, Repair, Store, StoreError, StoreOptions,
    Verdict,
};

use trees::{Files, list, trees};

const REPOSITORY: &str = "registry.example/team/app";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where a store notes whether image files can be mounted.
const NOTE: &str = "meta/erofs";

/// Most damages of one input.
const DAMAGES_MAX: usize = 6;

/// The store that is copied, and what it holds.
struct Template {
    root: tempfile::TempDir,
    image: Image,
    /// Files below the root, in order.
    files: Vec<PathBuf>,
}

static DIRECTORIES: LazyLock<Template> = LazyLock::new(|| Template::new(Some("said by the test")));
static IMAGES: LazyLock<Template> = LazyLock::new(|| Template::new(None));

impl Template {
    /// A store with an image; `why_not` is what it believes to be in the way of image files.
    fn new(why_not: Option<&str>) -> Template {
        let root = tempfile::Builder::new().prefix("windlass-fuzz-").tempdir_in(memory()).expect("a directory");
        let place = root.path().join("store");
        let image = Image::new();
        // The first store tries image files out and writes its note, which the second one reads.
        image.pull(&open(&place).expect("a new store")).expect("a first pull");
        let note = fs::read(place.join(NOTE)).expect("a note");
        fs::remove_dir_all(&place).expect("a store that nobody uses");
        let mut note: serde_json::Value = serde_json::from_slice(&note).expect("a note");
        note["why_not"] = why_not.into();
        drop(open(&place).expect("a new store"));
        fs::write(place.join(NOTE), note.to_string()).expect("a note");
        image.pull(&open(&place).expect("the store")).expect("a first pull");
        let mut files = Vec::new();
        list(&place, &mut files);
        files.retain(|path| path.is_file());
        files.sort();
        let has_images = files.iter().any(|path| path.ends_with("image"));
        assert_eq!(has_images, why_not.is_none(), "the form of the layers");
        Template { root, image, files }
    }
}

/// The database panics over pages that make no sense, and the store makes errors of that. The fuzzer would end with any
/// panic, caught or not.
fn let_the_database_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|location| location.file().contains("/redb-")) {
                hook(panic);
            }
        }));
    });
}

/// The input is a list of damages.
pub fn run(bytes: &[u8]) {
    let_the_database_panic();
    let template = match bytes.first() {
        Some(128..) => &*IMAGES,
        Some(..128) | None => &*DIRECTORIES,
    };
    let place = tempfile::Builder::new().prefix("windlass-fuzz-").tempdir_in(memory()).expect("a directory");
    let root = place.path().join("store");
    let original = template.root.path().join("store");
    copy(&original, &root);
    damage(bytes, &root, template);

    let store = match open(&root) {
        Ok(store) => store,
        Err(error) => return told(&error),
    };
    for error in [store.images().err(), store.find(&name()).err()].into_iter().flatten() {
        told(&error);
    }
    match store.fsck(Depth::Full, Repair::No) {
        Ok(report) if report.verdict() == Verdict::Clean => {
            let image = store.find(&name()).unwrap_or_else(|error| panic!("clean, but {error}"));
            if image.is_some_and(|image| image.damage.is_none()) {
                template.image.check(&root, &original);
            }
        }
        Ok(_) => {}
        Err(error) => told(&error),
    }
    match store.fsck(Depth::Full, Repair::Yes) {
        Ok(report) if report.verdict() != Verdict::Damaged => {
            let again = store.fsck(Depth::Full, Repair::No).expect("it was checked just now");
            assert_eq!(again.verdict(), Verdict::Clean, "{again:?} after {report:?}");
        }
        Ok(_) => return,
        Err(error) => return told(&error),
    }
    match store.find(&name()) {
        Ok(Some(image)) if image.damage.is_none() => template.image.check(&root, &original),
        Ok(_) => {}
        Err(error) => told(&error),
    }
    match template.image.pull(&store) {
        Ok(()) => {
            let image = store.find(&name()).expect("it was pulled").expect("it was pulled");
            assert_eq!(image.damage, None, "pulled again");
            template.image.check(&root, &original);
        }
        Err(error) => told(&error),
    }
}

fn name() -> String {
    format!("{REPOSITORY}:1")
}

fn open(root: &Path) -> Result<Store, StoreError> {
    let mut options = StoreOptions::default();
    options.lock_timeout = Duration::from_millis(50);
    Store::open(root, options)
}

fn told(error: &StoreError) {
    assert!(!error.reason().class().is_empty() && !error.to_string().is_empty());
    assert!(!matches!(error, StoreError::Locked { .. }), "nobody else holds the store: {error}");
}

/// Memory where there is such a file system: a run copies a whole store.
fn memory() -> &'static Path {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared } else { Path::new("/tmp") }
}

/// Copies a tree with modes and times, as a backup would.
fn copy(from: &Path, to: &Path) {
    let meta = fs::symlink_metadata(from).expect("an entry");
    let times =
        FileTimes::new().set_accessed(meta.accessed().expect("a time")).set_modified(meta.modified().expect("a time"));
    if meta.is_dir() {
        fs::create_dir(to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
        fs::set_permissions(to, meta.permissions()).expect("a mode");
    } else {
        fs::copy(from, to).expect("a copy");
    }
    File::open(to).and_then(|file| file.set_times(times)).expect("times");
}

// ---- damages

fn damage(bytes: &[u8], root: &Path, template: &Template) {
    let mut bytes = bytes.iter().copied();
    for _ in 0..DAMAGES_MAX {
        let (Some(kind), Some(which)) = (bytes.next(), bytes.next()) else { return };
        let original = &template.files[usize::from(which) % template.files.len()];
        let path = root.join(original.strip_prefix(template.root.path().join("store")).expect("it lies below"));
        let mut number = || u64::from(bytes.next().unwrap_or(0)) << 8 | u64::from(bytes.next().unwrap_or(0));
        let (one, two) = (number(), number());
        // An earlier damage may have taken the file away.
        let size = fs::symlink_metadata(&path).map_or(0, |meta| meta.size());
        let at = if size == 0 { 0 } else { one.wrapping_mul(257) % size };
        let outcome = match kind % 10 {
            0 => edit(&path).and_then(|file| file.set_len(at)),
            1 => edit(&path).and_then(|file| {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ (1 << (two & 7))], at)
            }),
            2 => edit(&path).and_then(|file| file.write_all_at(&vec![two as u8; (two >> 8) as usize + 1], at)),
            3 => fs::remove_file(&path),
            4 => fs::remove_file(&path).and_then(|()| fs::create_dir(&path)),
            5 => fs::remove_file(&path).and_then(|()| std::os::unix::fs::symlink("/nowhere", &path)),
            6 => fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"more")),
            7 => path.parent().map_or(Ok(()), |parent| fs::write(parent.join(format!("stray-{one}")), "stray")),
            8 => path.parent().map_or(Ok(()), fs::remove_dir_all),
            _ => fs::set_permissions(&path, fs::Permissions::from_mode(two as u32 & 0o777)),
        };
        // What cannot be damaged any more stays as it is.
        drop(outcome);
    }
}

fn edit(path: &Path) -> std::io::Result<File> {
    let mode = fs::symlink_metadata(path)?.permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    fs::set_permissions(path, mode)?;
    Ok(file)
}

// ---- the image

struct Image {
    config: Vec<u8>,
    manifest: Vec<u8>,
    keys: Vec<LayerKey>,
    blobs: Vec<Vec<u8>>,
}

impl Image {
    fn new() -> Image {
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let blobs = vec![
            [entry("etc/", 0o755, owner, b""), entry("etc/name", 0o644, owner, b"lower"), vec![0; 1024]].concat(),
            [entry("usr/", 0o755, owner, b""), entry("usr/text", 0o600, owner, b"upper"), vec![0; 1024]].concat(),
        ];
        let digests = blobs.iter().map(|blob| Digest::sha256(blob));
        let keys = LayerKey::stack(
            digests
                .zip(&blobs)
                .map(|(digest, blob)| (digest.clone(), blob.len() as u64, LAYER_TYPE.to_owned(), digest)),
        );
        let diff_ids: Vec<&Digest> = keys.iter().map(|key| &key.layer.diff_id).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let layers: Vec<serde_json::Value> = keys
            .iter()
            .map(|key| serde_json::json!({"mediaType": LAYER_TYPE, "digest": key.layer.blob, "size": key.layer.size_bytes}))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::sha256(&config), "size": config.len(),
            },
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        Image { config, manifest, keys, blobs }
    }

    fn pull(&self, store: &Store) -> Result<(), StoreError> {
        let (config, manifest) = (Digest::sha256(&self.config), Digest::sha256(&self.manifest));
        let lease = store.begin(LeaseOptions::pull(&name()))?;
        lease.put_blob(BlobKind::Config, &config, &self.config)?;
        lease.put_blob(BlobKind::Manifest, &manifest, &self.manifest)?;
        for (key, blob) in self.keys.iter().zip(&self.blobs) {
            let mut works = match lease.claim_layer(key, &|| true)? {
                LayerClaim::Present => Vec::new(),
                LayerClaim::Work(work) => vec![work],
            };
            while let Some(work) = works.pop() {
                works.extend(work.unpack(&mut blob.as_slice(), &())?.again);
            }
        }
        lease.commit(ImageCommit {
            names: vec![Name::tagged(REPOSITORY, "1"), Name::digested(REPOSITORY, &manifest)],
            config,
            manifest,
            index: None,
            platform: "linux/amd64".to_owned(),
            layers: self.keys.iter().map(|key| key.layer.clone()).collect(),
            source: None,
        })?;
        Ok(())
    }

    /// Whatever the store says, its documents and the files of its layers are on disk as they were.
    fn check(&self, root: &Path, original: &Path) {
        for document in [&self.config, &self.manifest] {
            let path = root.join("blobs/sha256").join(Digest::sha256(document).hex());
            assert_eq!(&fs::read(&path).unwrap_or_default(), document, "{}", path.display());
        }
        let have = trees(root);
        for (tree, files) in trees(original) {
            // Files that nobody recorded are not looked for, so others may stand beside.
            let holds = |other: &Files| files.iter().all(|(name, file)| other.get(name) == Some(file));
            assert!(have.values().any(holds), "the layer of {} is not whole", tree.display());
        }
    }
}

/// A ustar entry; a name that ends in a slash is a directory.
fn entry(name: &str, mode: u32, owner: (u32, u32), content: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    let numbers = format!("{mode:07o}\0{:07o}\0{:07o}\0{:011o}\0{:011o}\0        ", owner.0, owner.1, content.len(), 1);
    put(100, numbers.as_bytes());
    put(156, if name.ends_with('/') { b"5" } else { b"0" });
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}
